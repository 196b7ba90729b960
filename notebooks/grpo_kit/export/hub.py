"""The merged model and its GGUF files, pushed to a hub."""

import tempfile

from .gguf import check_methods, complete_tokenizer, save_gguf


def publish(model, tokenizer, repository, methods, token):
    """Push the merged model to `repository` and its GGUF files to `repository`-GGUF, both private."""
    methods = check_methods(methods)
    with complete_tokenizer(tokenizer):
        model.push_to_hub_merged(repository, tokenizer, save_method="merged_16bit", token=token, private=True)
        if hasattr(model, "push_to_hub_gguf"):
            model.push_to_hub_gguf(f"{repository}-GGUF", tokenizer, quantization_method=methods, token=token, private=True)
            return
    from huggingface_hub import HfApi  # Unsloth has no push_to_hub_gguf without a GPU

    hub = HfApi(token=token)
    hub.create_repo(f"{repository}-GGUF", private=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_gguf(model, tokenizer, folder, methods)
        hub.upload_folder(repo_id=f"{repository}-GGUF", folder_path=folder)
