"""The code blocks of a page of Markdown, run as they are printed."""

import doctest
import re


def blocks(language: str, page: str) -> str:
    """All code of a language, in the order of the page."""
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", page, flags=re.S))


def run_examples(text: str, name: str) -> int:
    """Run every `>>>` of a page in one namespace that is empty at first; return how many there are."""
    examples = doctest.DocTestParser().get_doctest(blocks("python", text), {}, name, name, 0)
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples, out=report.append)
    assert not report, "".join(report)
    return len(examples.examples)
