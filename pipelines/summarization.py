"""Summarization."""

from .text_to_text import TextToTextPipeline


class SummarizationPipeline(TextToTextPipeline):
    """Summarizes texts; inputs, outputs and options are those of `TextToTextPipeline`.

    ```python
    >>> summarize = pipeline("summarization", model=folder)
    >>> summarize("An apple a day, keeps the doctor away", min_length=5, max_length=20)
    [{'summary_text': 'An apple a day keeps the doctor away'}]
    ```
    """

    return_name = "summary"
