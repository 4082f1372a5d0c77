"""`crossmask evaluate`: the scores of a saved model on test data."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .command import (
    AsJson,
    Device,
    Dtype,
    Model,
    Quiet,
    ReverseModel,
    ReverseWeight,
    add,
    quieten,
    whole_number,
    write_json,
)
from .recipes import complete


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "evaluate", "Examine")
    def evaluate(
        model: Model,
        recipe: Annotated[
            str | None, typer.Option(help="Whose task and test data to take.", autocompletion=complete)
        ] = None,
        task: Annotated[str | None, typer.Option(help="Such as translation (the recipe's).")] = None,
        data: Annotated[
            str | None,
            typer.Option(help="A .tsv, .jsonl or SQuAD .json file, a dataset of the Hub, or a mapping as in recipes."),
        ] = None,
        split: Annotated[str, typer.Option(help="Of a dataset of the Hub.")] = "test",
        task_options: Annotated[str | None, typer.Option(metavar="YAML", help="Such as '{lowercase: true}'.")] = None,
        data_dir: Annotated[str | None, typer.Option(help="A folder with local copies of datasets.")] = None,
        report_by: Annotated[
            str | None,
            typer.Option(metavar="COLUMN", help="Score each value of this column of the test records too."),
        ] = None,
        limit: Annotated[int | None, whole_number("Examples, the first.")] = None,
        overlong: Annotated[
            Literal["error", "truncate", "split"] | None, typer.Option(help="What is done with longer texts.")
        ] = None,
        num_beams: Annotated[int | None, whole_number("(The model's.)")] = None,
        reverse_model: ReverseModel = None,
        reverse_weight: ReverseWeight = None,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="For metrics and predictions.")
        ] = None,
        compare: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE", help="Another model's metrics.json: differences, of translations with p-values."
            ),
        ] = None,
        json: AsJson = False,
        batch_tokens: Annotated[int, whole_number("Tokens in a batch.")] = 4096,
        dtype: Dtype = "auto",
        device: Device = None,
        quiet: Quiet = False,
    ) -> None:
        """Evaluate a saved model, on a recipe's test data or others, by the metrics of its task.

        [b]--output[/b] writes metrics.json and predictions.jsonl, which [b]--compare[/b] reads: sacreBLEU's paired
        bootstrap tests whether two translators differ. [b]--report-by[/b] adds the task's main metric of each value of
        a column, such as a language or a domain, with bootstrap intervals, the worst and the spread, and groups.png.
        """
        from crossmask.data.text_files import parse_yaml
        from crossmask.inference.loading import choose_dtype
        from crossmask.training import saved_evaluation
        from crossmask.training.report import group_rows
        from crossmask.utils.hardware import device_named

        quieten()
        options = None if task_options is None else parse_yaml(task_options, Path("--task-options"))
        found, column = saved_evaluation.data_arguments(
            recipe,
            report_by,
            task=task,
            test=None if data is None else saved_evaluation.data_of_text(data, split),
            task_options=options,
            data_dir=data_dir,
            overlong=overlong,
        )
        on = device_named(device)
        evaluation = saved_evaluation.evaluate_saved(
            model,
            found,
            report_by=column,
            limit=limit,
            dtype=choose_dtype(dtype, on),
            device=on,
            batch_tokens=batch_tokens,
            generation={} if num_beams is None else {"num_beams": num_beams},
            reverse_model=reverse_model,
            reverse_weight=reverse_weight,
            quiet=quiet,
        )
        if output is not None:
            saved_evaluation.write_evaluation(output, evaluation)
        differences = None if compare is None else saved_evaluation.compare(evaluation, compare)
        if json:
            write_json({**evaluation.record, **({} if differences is None else {"compared": differences})})
            return
        _print(evaluation.scores, differences)
        if evaluation.groups is not None:
            _print_groups(group_rows(evaluation.groups), str(evaluation.column))


def _print_groups(rows: list[tuple[str, ...]], column: str) -> None:
    head, *others = rows
    table = [(column, *head[1:]), *others]
    widths = [max(len(row[at]) for row in table) for at in range(len(head))]
    print()
    for name, *cells in table:
        shown = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        print(f"{name:<{widths[0]}}  {shown}".rstrip())


def _print(scores: dict[str, Any], differences: dict[str, dict[str, float]] | None) -> None:
    width = max(map(len, scores))
    if differences is None:
        for name, value in scores.items():
            print(f"{name:<{width}}  {value if isinstance(value, str) else format(value, '.2f')}")
        return
    print(f"{'':<{width}}  {'this':>8}  {'other':>8}  {'difference':>10}  p-value")
    for name, row in differences.items():
        shown = f"{row['p_value']:.4f}" if "p_value" in row else ""
        line = f"{name:<{width}}  {row['this']:>8.2f}  {row['other']:>8.2f}  {row['difference']:>+10.2f}  {shown}"
        print(line.rstrip())
