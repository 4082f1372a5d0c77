"""`crossmask push`: upload a finished folder."""

from pathlib import Path
from typing import Annotated

import typer

from .command import add


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "push", "Share")
    def push(
        folder: Annotated[
            Path, typer.Argument(metavar="FOLDER", help="The output folder of a finished run.", show_default=False)
        ],
        repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="user/name.", show_default=False)],
        private: Annotated[bool, typer.Option("--private", help="If the repository is created here.")] = False,
        message: Annotated[str, typer.Option(help="Of the commit.")] = "Upload model",
        revision: Annotated[str | None, typer.Option(help="A branch, which is created if it does not exist.")] = None,
    ) -> None:
        """Upload a finished folder to the Hugging Face Hub as one commit: all files or none.

        The token is that of [b]hf auth login[/b], or of the environment variable HF_TOKEN.
        """
        from huggingface_hub.errors import HFValidationError

        from crossmask.hub.upload import push_folder
        from crossmask.utils.errors import InputError

        try:
            info = push_folder(folder, repository, private=private or None, commit_message=message, revision=revision)
        except HFValidationError as error:
            raise InputError(f"REPOSITORY must be user/name, got {repository!r}: {error}") from None
        print(info.commit_url)
