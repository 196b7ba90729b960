"""The merged model and its GGUF files, pushed to the Hugging Face hub or to ModelScope."""

import contextlib
import json
import os
import re
import tempfile
import threading
from pathlib import Path

import httpx
import requests
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import tqdm
from urllib3 import Retry

from .gguf import check_methods, complete_tokenizer, save_gguf

SILENCE = 15  # seconds without a byte in either direction, before a hub is given up
IN_WORDS = (ImportError, ValueError, httpx.InvalidURL)  # of a proxy or an address that cannot be used, of a file that is not taken
# ModelScope's client would try for minutes more; it reads these when it is imported.
MODELSCOPE = {"MODELSCOPE_UPLOAD_BLOB_MAX_ATTEMPTS": "1", "MODELSCOPE_UPLOAD_COMMIT_MAX_ATTEMPTS": "1",
              "MODELSCOPE_UPLOAD_FAILED_FILE_MAX_RETRY_ROUNDS": "1", "MODELSCOPE_UPLOAD_RECOVERY_ENABLED": "0"}


def publish(model, tokenizer, repository, methods, token, hub="huggingface"):
    """Push the merged model to `repository` and its GGUF files to `repository`-GGUF, both made private, on `hub`, one of `HUBS`.

    Both are made in a temporary folder. ConnectionError, one sentence, where the hub does not take them or is silent for `SILENCE`
    seconds, however little it takes in them; whole files that it has taken stay there, and a second try does not send them again.
    """
    methods = check_methods(methods)
    if hub not in HUBS:
        raise ValueError(f"{hub!r} is no hub that is known here: choose among {', '.join(HUBS)}.")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
        raise ValueError(f"{repository!r} is no repository: write your name on the hub, a slash, and the name that it shall have.")
    if not re.fullmatch("[!-~]+", token or ""):
        raise ValueError("The token is empty, or holds a space or a line end: copy it again from the hub's settings.")
    push = HUBS[hub](repository, token)  # a token that is refused, or a silent hub, is told before anything is merged
    with tempfile.TemporaryDirectory() as work:
        with complete_tokenizer(tokenizer):
            model.save_pretrained_merged(f"{work}/merged", tokenizer, save_method="merged_16bit")
        push(repository, f"{work}/merged")
    with tempfile.TemporaryDirectory() as work:
        save_gguf(model, tokenizer, work, methods)
        push(f"{repository}-GGUF", work)


class _Silence(Exception):
    """A hub says nothing. None of the errors after which the hubs' clients send a file again."""


@contextlib.contextmanager
def _bounded(client, limit):
    """In the block, a request of `client`, a class, ends in _Silence after `SILENCE` seconds without a byte, and all that follow at once.

    So does the block, whatever the client makes of it, which may be no error at all.
    `limit(session, request, options)` returns the options of a request with its time-outs, which count from the last byte.
    """
    send, silent = client.send, threading.Event()

    def bounded(session, request, **options):
        if silent.is_set():
            raise _Silence
        try:
            return send(session, request, **limit(session, request, options))
        except Exception as error:
            if not _timed_out(error):
                raise
            silent.set()
            raise _Silence from None

    client.send = bounded
    try:
        yield
    except Exception:
        if not silent.is_set():
            raise
    finally:
        client.send = send
    if silent.is_set():
        raise _Silence


def _timed_out(error):
    seen = []
    while error and error not in seen:
        if isinstance(error, (TimeoutError, httpx.TimeoutException, requests.Timeout)):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__  # requests says ConnectionError for what cannot be sent
    return False


@contextlib.contextmanager
def _told(errors, endpoint, repository):
    """ConnectionError, one sentence, for what a hub's client raises in the block: one of `errors`, silence, or what it makes of a login page."""
    try:
        yield
    except BaseException as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else error  # huggingface_hub wraps what a file's thread raises
        if not isinstance(cause, (*errors, _Silence, json.JSONDecodeError)):
            raise
        status = getattr(cause, "status_code", None) or getattr(getattr(cause, "response", None), "status_code", None)
        reason = f"silent for {SILENCE} seconds" if isinstance(cause, _Silence) else status or type(cause).__name__
        advice = "check the network and try again; nothing here is lost, and whole files that it has taken are not sent again"
        if status in (401, 403):
            advice = "give a token that may write, from the hub's settings"
        elif isinstance(cause, OfflineModeIsEnabled):
            advice = "unset HF_HUB_OFFLINE before Python starts"
        elif isinstance(cause, IN_WORDS) and not isinstance(cause, json.JSONDecodeError):
            advice = " ".join(str(cause).split()).rstrip(".")
        raise ConnectionError(f"{endpoint} did not take {repository} ({reason}): {advice}.") from None


def _huggingface(repository, token):
    """Ask the hub who the token is, and return what pushes a folder to a private repository.

    By plain requests: Xet, the client's other way, takes the sending of a whole block of up to 64 MB for silence (hf_xet 1.8).
    """
    errors = (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled, *IN_WORDS)

    def limit(session, request, options):
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), SILENCE)
        return options

    @contextlib.contextmanager
    def talking(name):
        bars, xet_disabled = set(tqdm._instances), constants.HF_HUB_DISABLE_XET
        constants.HF_HUB_DISABLE_XET = True
        try:
            with _told(errors, constants.ENDPOINT, name), _bounded(httpx.Client, limit):
                yield HfApi(token=token)
        finally:
            constants.HF_HUB_DISABLE_XET = xet_disabled
            for bar in set(tqdm._instances) - bars:  # of a file that was not taken: it would be drawn again below the sentence
                bar.close()

    def push(name, folder):
        with talking(name) as hub:
            hub.create_repo(name, private=True, exist_ok=True)
            hub.upload_folder(repo_id=name, folder_path=folder)

    with talking(repository) as hub:
        hub.whoami()
    return push


def _modelscope(repository, token):
    """As `_huggingface`."""
    for name, value in MODELSCOPE.items():
        os.environ.setdefault(name, value)
    from modelscope_hub import HubApi, HubConfig
    from modelscope_hub.errors import AlreadyExistsError, HubError

    hub = HubApi(config := HubConfig(token=token))

    def limit(session, request, options):
        session.get_adapter(request.url).max_retries = Retry(0, read=False)
        return options | {"timeout": SILENCE}

    @contextlib.contextmanager
    def talking(name):
        with _told((HubError, requests.RequestException), config.endpoint, name), _bounded(requests.Session, limit):
            yield

    def push(name, folder):
        with talking(name):
            with contextlib.suppress(AlreadyExistsError):
                hub.create_repo(name, "model", visibility="private")
            hub.upload_folder(name, "model", folder, use_cache=False)

    with talking(repository):
        hub.openapi.get_current_user()
    return push


HUBS = {"huggingface": _huggingface, "modelscope": _modelscope}
