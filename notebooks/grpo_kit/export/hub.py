"""The merged model and its GGUF files, pushed to the Hugging Face hub or to ModelScope."""

import contextlib
import json
import os
import tempfile
from pathlib import Path

import httpx
import requests
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from .gguf import check_methods, complete_tokenizer, save_gguf

HUBS = ["huggingface", "modelscope"]
SILENCE = 10  # seconds, before a hub that does not answer is given up
# ModelScope's client would wait an hour for a host that says nothing in the middle of a file, five times; it reads these when it is imported.
MODELSCOPE = {"MODELSCOPE_UPLOAD_BLOB_READ_TIMEOUT_SECONDS": "60", "MODELSCOPE_UPLOAD_BLOB_MAX_ATTEMPTS": "2"}


def publish(model, tokenizer, repository, methods, token, hub="huggingface"):
    """Push the merged model to `repository` and its GGUF files to `repository`-GGUF, both made private, on `hub`, one of `HUBS`.

    ConnectionError, one sentence, where the hub does not take them; what it has taken stays, and a second try goes on.
    """
    methods = check_methods(methods)
    if hub not in HUBS:
        raise ValueError(f"{hub!r} is no hub that is known here: choose among {', '.join(HUBS)}.")
    push = {"huggingface": _to_huggingface, "modelscope": _to_modelscope}[hub]
    push(model, tokenizer, repository, methods, token)


@contextlib.contextmanager
def _told(errors, endpoint, repository):
    """ConnectionError, one sentence, for what a hub's client raises in the block: one of `errors`, or what it makes of a login page."""
    try:
        yield
    except (*errors, json.JSONDecodeError) as error:
        status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
        advice = "give a token that may write, from the hub's settings" if status in (401, 403) else "check the network and try again"
        raise ConnectionError(f"{endpoint} did not take {repository} ({status or type(error).__name__}): {advice}.") from None


def _to_huggingface(model, tokenizer, repository, methods, token):
    with _told((HfHubHTTPError, httpx.HTTPError), constants.ENDPOINT, repository):
        hub = HfApi(token=token)
        # A token that is refused, or a hub that is silent, is told before anything is merged; whoami() itself would wait for ever.
        me = get_session().get(f"{constants.ENDPOINT}/api/whoami-v2", headers=build_hf_headers(token=token), timeout=SILENCE)
        hf_raise_for_status(me)
        me.json()
        with complete_tokenizer(tokenizer):
            model.push_to_hub_merged(repository, tokenizer, save_method="merged_16bit", token=token, private=True)
            if hasattr(model, "push_to_hub_gguf"):
                model.push_to_hub_gguf(f"{repository}-GGUF", tokenizer, quantization_method=methods, token=token, private=True)
                return
        hub.create_repo(f"{repository}-GGUF", private=True, exist_ok=True)  # Unsloth has no push_to_hub_gguf without a GPU
        with tempfile.TemporaryDirectory() as folder:
            save_gguf(model, tokenizer, folder, methods)
            hub.upload_folder(repo_id=f"{repository}-GGUF", folder_path=folder)


def _to_modelscope(model, tokenizer, repository, methods, token):
    for name, value in MODELSCOPE.items():
        os.environ.setdefault(name, value)
    from modelscope_hub import HubApi, HubConfig
    from modelscope_hub.errors import AlreadyExistsError, HubError

    hub = HubApi(config := HubConfig(token=token))
    with _told((HubError, requests.RequestException), config.endpoint, repository), tempfile.TemporaryDirectory() as work:
        type(hub.openapi)(config, timeout=SILENCE, max_retries=0).get_current_user()  # as above
        merged, gguf = Path(work, "merged"), Path(work, "gguf")
        with complete_tokenizer(tokenizer):
            model.save_pretrained_merged(str(merged), tokenizer, save_method="merged_16bit")
        gguf.mkdir()
        save_gguf(model, tokenizer, gguf, methods)
        for name, folder in ((repository, merged), (f"{repository}-GGUF", gguf)):
            with contextlib.suppress(AlreadyExistsError):
                hub.create_repo(name, "model", visibility="private")
            hub.upload_folder(name, "model", folder, use_cache=False)
