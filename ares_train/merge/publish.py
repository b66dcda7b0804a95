"""A merged folder on the Hugging Face Hub. The token is the environment's or `hf auth login`'s, and is never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ares_train.checkpoints import CheckpointError


def require(name: str) -> None:
    """CheckpointError unless ``name`` can be a repository's and there is a token: said before an hour of merging."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise CheckpointError(f"--hf_upload_path: {str(error).splitlines()[0]}") from None
    if not huggingface_hub.get_token():
        raise CheckpointError("--hf_upload_path: no token; run `hf auth login` or set HF_TOKEN")


def upload(folder: Path, name: str, *, private: bool = False, api: Any = None) -> str:
    """Upload ``folder`` to the repository ``name``, made if it is not there; its address is returned.

    Uploading again sends only what changed. CheckpointError says what the Hub answered.
    """
    import httpx  # type: ignore[import-not-found,unused-ignore]
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    hub = api if api is not None else HfApi()
    try:
        address = hub.create_repo(name, private=private, exist_ok=True)
        hub.upload_folder(folder_path=folder, repo_id=name, repo_type="model", commit_message="Merged by ares-train")
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else "no answer"
        meaning = {401: "the token is not valid", 403: "the token may not write there"}.get(code, "see its status page")
        raise CheckpointError(
            f"upload to {name}: the Hub answered {code}: {meaning}; the folder is at {folder}"
        ) from None
    except (httpx.TransportError, OSError) as error:
        raise CheckpointError(
            f"upload to {name}: {type(error).__name__}; the folder is at {folder}, try again"
        ) from None
    return str(address)
