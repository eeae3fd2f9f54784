"""What of an answer is its caption."""

import re


HEAD = re.compile(r"\s*audio caption\s*:\s*", re.IGNORECASE)


def caption_of(answer: str) -> str:
    """
    Give an answer without the words "Audio caption:" before it.

    OpenAQA's captions begin so, hence those of every model that learnt from them; LTU scores them without.
    """
    return HEAD.sub("", answer, count=1) if HEAD.match(answer) else answer
