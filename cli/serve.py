"""`crossmask serve`: a model behind HTTP."""

import dataclasses
from typing import Annotated, Any, Literal

import typer

from .command import Device, Dtype, Engine, Model, Port, Threads, above_0, add, quieten, whole_number

_TEXT = typer.Option(metavar="TEXT", help="Goes before every text.")


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "serve", "Use a model")
    def serve(
        model: Model,
        engine: Engine = "auto",
        task: Annotated[
            Literal["auto", "translation", "summarization", "question-answering"],
            typer.Option(help="auto goes by the folder's model card."),
        ] = "auto",
        languages: Annotated[
            list[str] | None,
            typer.Option(
                metavar="SOURCE:TARGET",
                help="What the model translates, such as en:de, or 'en:de=<2de> ' with a prefix; may be repeated. "
                "(The two languages of the model card.)",
                show_default=False,
            ),
        ] = None,
        host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for every network.")] = "127.0.0.1",
        port: Port = 5000,
        api_keys: Annotated[
            str | None,
            typer.Option(
                metavar="FILE", envvar="CROSSMASK_API_KEYS", help="API keys, one a line; none are asked for."
            ),
        ] = None,
        requests_per_minute: Annotated[int | None, whole_number("Of one key or address at most (any).")] = None,
        max_characters: Annotated[int, whole_number("In a text at most.")] = 10_000,
        max_texts: Annotated[int, whole_number("In a request at most.")] = 64,
        max_body: Annotated[int, whole_number("Bytes of a request at most.")] = 2**20,
        max_queue: Annotated[int, whole_number("Texts that wait or are computed at a time.")] = 512,
        max_streams: Annotated[int, whole_number("Streams that are open at a time.")] = 16,
        batch_tokens: Annotated[int, whole_number("Source tokens in a batch.")] = 4096,
        max_delay: Annotated[
            float, typer.Option(parser=above_0, metavar="S", help="Seconds that a text waits for others.")
        ] = 0.005,
        timeout: Annotated[
            float, typer.Option(parser=above_0, metavar="S", help="Seconds until a request is answered.")
        ] = 60.0,
        allow_origins: Annotated[
            list[str] | None,
            typer.Option("--allow-origin", help="Origin whose web pages may call; * for all; may be repeated."),
        ] = None,
        num_beams: Annotated[int | None, whole_number("(The model's.)")] = None,
        max_new_tokens: Annotated[int | None, whole_number("Tokens in an output at most (the model's).")] = None,
        source_prefix: Annotated[str | None, _TEXT] = None,
        source_template: Annotated[
            str | None,
            typer.Option(metavar="TEXT", help="What an encoder-decoder reads, with {question} and {context}."),
        ] = None,
        dtype: Dtype = "auto",
        device: Device = None,
        threads: Threads = None,
        trust_remote_code: Annotated[
            bool, typer.Option("--trust-remote-code", help="Run code files beside the model; crossmask needs none.")
        ] = False,
    ) -> None:
        """Serve a model over HTTP: LibreTranslate's API, summaries, answers, and streams of tokens and words.

        /docs of the server has its endpoints. Ctrl-C or SIGTERM ends it when all that was accepted is answered.
        """
        given = dict(locals())
        from crossmask.server import LanguagePair, Settings, check_libraries, load_served_model
        from crossmask.server import serve as run
        from crossmask.server.settings import read_api_keys

        check_libraries()
        own = {"api_keys", "allow_origins"}
        fields = {field.name for field in dataclasses.fields(Settings)} & given.keys() - own
        settings = Settings(
            **{name: given[name] for name in fields},
            api_keys=frozenset() if api_keys is None else read_api_keys(api_keys),
            allow_origins=tuple(allow_origins or ()),
        )
        pairs = [LanguagePair.parse(text) for text in languages or ()]
        generation: dict[str, Any] = {
            name: given[name] for name in ("num_beams", "max_new_tokens") if given[name] is not None
        }
        quieten()
        served = load_served_model(
            model,
            engine,
            task=task,
            pairs=pairs,
            options=generation,
            source_prefix=source_prefix,
            source_template=source_template,
            device=device,
            dtype=dtype,
            threads=threads,
            trust_remote_code=trust_remote_code,
        )
        try:
            run(served, settings, host=host, port=port)
        finally:
            served.close()
