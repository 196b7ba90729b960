"""The merged model and its GGUF files, pushed to a hub."""

import json
import tempfile

import httpx
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError

from .gguf import check_methods, complete_tokenizer, save_gguf


def publish(model, tokenizer, repository, methods, token):
    """Push the merged model to `repository` and its GGUF files to `repository`-GGUF, both private.

    ConnectionError, one sentence, where the hub does not take them; what it has taken stays, and a second try goes on.
    """
    methods = check_methods(methods)
    try:
        HfApi(token=token).whoami()  # a token that is refused is told before anything is merged
        _push(model, tokenizer, repository, methods, token)
    except (HfHubHTTPError, httpx.HTTPError, json.JSONDecodeError) as error:  # the last: of a login page
        status = getattr(error.response, "status_code", "") if isinstance(error, HfHubHTTPError) else ""
        advice = "give a token that may write, from the hub's settings" if status in (401, 403) else "check the network and try again"
        raise ConnectionError(f"{constants.ENDPOINT} did not take {repository} ({status or type(error).__name__}): {advice}.") from None


def _push(model, tokenizer, repository, methods, token):
    with complete_tokenizer(tokenizer):
        model.push_to_hub_merged(repository, tokenizer, save_method="merged_16bit", token=token, private=True)
        if hasattr(model, "push_to_hub_gguf"):
            model.push_to_hub_gguf(f"{repository}-GGUF", tokenizer, quantization_method=methods, token=token, private=True)
            return
    hub = HfApi(token=token)  # Unsloth has no push_to_hub_gguf without a GPU
    hub.create_repo(f"{repository}-GGUF", private=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_gguf(model, tokenizer, folder, methods)
        hub.upload_folder(repo_id=f"{repository}-GGUF", folder_path=folder)
