"""The table of `make test-robust`: which files it runs, and what it reads out of pytest's report."""

from grpo_kit.workshop.robust import MARKS, files, table

REPORT = """<testsuites><testsuite><testcase name="test_a_row[no answer]" time="0.25"><properties>
<property name="said" value="line 2: a problem needs."/><property name="other" value="x"/></properties></testcase>
<testcase name="test_b" time="3"><failure message="no">trace</failure></testcase><testcase name="test_c" time="0"><skipped/></testcase>
<testcase time="0"/><testcase name="test_d" time="1"/></testsuite></testsuites>"""


def test_a_case_says_its_sentence_or_that_it_failed(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    assert table(tmp_path / "report.xml") == [
        ("a row[no answer]", "line 2: a problem needs.", 0.25), ("b", "FAILED", 3.0), ("d", "as it should", 1.0)]


def test_the_files_with_marked_tests_are_run(tmp_path):
    for number, text in enumerate([f"@pytest.mark.{mark}" for mark in MARKS] + ["@pytest.mark.parametrize"]):
        (tmp_path / f"test_{number}.py").write_text(text)
    assert [file.name for file in files(tmp_path)] == ["test_0.py", "test_1.py"]
    assert {"test_bad_input.py", "test_network.py", "test_secrets.py"} <= {file.name for file in files()}
