"""Penn Treebank tokens of a caption, as every captioning paper scores them, without Java.

COCO's caption scorer (Chen et al., arXiv 1504.00325; pycocoevalcap's PTBTokenizer) runs Stanford CoreNLP 3.4.1 with
``-lowerCase`` and drops punctuation. What that tool does is written down here as a list of patterns, from
experiments on its answers: at each place of the text every pattern is tried, the longest match wins, the first listed
wins a tie. Three things surprise people and all matter for exact scores: "can't" becomes "ca n't"; "p.m." keeps its
full stops; and "(" becomes "-lrb-", which is NOT dropped, because the scorer's own list spells it in capitals.

Left out, since captions hold none: e-mail and web addresses. Of scripts other than Latin, Greek, Cyrillic, CJK and
Devanagari some signs are not known to be letters.
"""

import re
from collections.abc import Iterator


DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# How the tool rewrites a token; a quote or a dash becomes one that is dropped.
_REWRITTEN = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"€": "$", "\x80": "$", "¤": "$", "₠": "$", "£": "#", "¢": "cents"},
    **{"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'", "&nbsp;": "-", "&mdash;": "--"},
    **dict.fromkeys('"“”«»‘’‛‹›\x91\x92\x93\x94', "'"),
    **dict.fromkeys("–—―\x96\x97", "--"),
    **{"…": "...", "\x85": "..."},
}

_APOSTROPHE = r"(?:['’\x92]|&apos;)"
# Python's \w minus digits, "_" and number signs such as ² or Ⅷ; then marks that stand on the letter before them.
_LETTER = (
    r"(?:[^\W\d_²³¹¼-¾⁰⁴-⁹₀-₉⅐-↉①-⒛]"
    r"|[\u02c2-\u02c5\u02d2-\u02df\u02e5-\u036f\u0483-\u0487\u0591-\u05bd\u064b-\u065e\u0900-\u0903\u093c-\u094e\xad])"
)
_ALNUM = rf"(?:{_LETTER}|\d)"
_WORD = rf"{_LETTER}{_ALNUM}*(?:[.!?]{_LETTER}{_ALNUM}*)*"
# "o'clock", "d'you", "O'Brien": one of these letters, an apostrophe, at least two more characters.
_PART = rf"(?:[DLOdlo]{_APOSTROPHE}(?={_ALNUM}{{2}}))?{_ALNUM}+"
_HYPHENATED = rf"{_PART}(?:[-_‐‑]{_PART})*"
_DOTTED = rf"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|{_ALNUM}+))+"
_SLASH_PART = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_ATTRIBUTE = r"""[A-Za-z][A-Za-z0-9_:.-]*(?:="[^"]*"|='[^']*')?"""

# Titles and units that go before something, then months, states and companies that may end a sentence.
_TITLES = (
    "adj|adm|adv|alex|asst|attys?|ave|brig|capt|cf|cie|cmdr|col|comdr|cpl|det|dr|drs|elec|dept|ens|ft|gen|govs?|hon|"
    "insp|invt|jos|lieut|lt|maj|messrs|mlle|mme|mr|mrs|ms|msgr|mt|natl|pfc|ph|pres|profs?|pvt|reps?|rev|sens?|sfc|"
    "sgt|spc|st|ste|supts?|treas|vs|wm"
)
_TRAILING = (
    "ala|al|apr|ariz|assn|assoc|aug|bhd|bldg|blvd|bros|calif|colo|conn|corp|cos?|ct|dak|dec|esq|est|etc|ext|feb|fla|"
    "fri|ga|inc|ind|intl|jan|jr|jul|jun|kans?|ky|ltd|mar|md|mich|minn|mo|mont|mon|neb|nev|nov|oct|okla|penn|plc|rd|rt|"
    "sept?|seq|sq|sr|sys|tel|tenn|thurs|thu|tues?|univ|va|vt|wed|wisc?|wyo"
)
_LOWER_TITLES = "[Mm]fg|[Mm]tg"
_LOWER_TRAILING = "[Pp]p?t[ey]s?|[Bb]ancorp"
_CAPITALISED = "A[Zz]|Ark|ARK|Del|DEL|Ill|ILL|La|LA|Pa|PA|Ore|ORE|Tex|TEX|Wash|Miss|Mass"

_STARTERS = (
    "A|About|According|After|An|As|At|But|Cannot|He|Her|Here|However|If|In|It|Last|Many|More|Now|Once|One|Other|Our|She|"
    "Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|What|When|While|Yet|You"
)
_SENTENCE_START = f"{_STARTERS}|{_STARTERS.upper()}"

# The groups of a pattern are its tokens; what it matches after its last group counts for its length only.
_RULES = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rf"<[A-Za-z][A-Za-z0-9_:.-]*(?: +{_ATTRIBUTE})* */?>|</[A-Za-z][A-Za-z0-9_:.-]*>",  # a tag, "<unk>"
        r"(?i:(can)(not)|(gon|wan)(na)|(got)(ta)|(gim|lem)(me))",
        rf"(?i:({_APOSTROPHE}t)(is|was))",
        rf"([A-Za-z]*[A-MO-Za-mo-z])(?i:n(?:['’`\x92]|&apos;)t)",  # "do", before "n't"
        rf"({_WORD})(?i:{_APOSTROPHE}(?:[msd]|re|ve|ll))",  # "dog", before "'s"
        _WORD,
        rf"{_APOSTROPHE}(?i:[msd]|re|ve|ll)(?![A-Za-z])|[’\x92](?i:[msdn]|re|ve|ll)",
        r"(?i:n(?:['’`\x92]|&apos;)t)",
        rf"(?i:{_APOSTROPHE}(?:em|till?|cause)|cap'n|c'mon|e'er|ev'ry|li'l|nat'l|o'o)",
        rf"{_APOSTROPHE}[Nn]{_APOSTROPHE}|{_APOSTROPHE}[Nn](?=\s)",  # "rock 'n' roll"
        rf"(?:[Oo]l|[DdJjLlYy](?!{_APOSTROPHE}\s)|[DdJjLl]){_APOSTROPHE}",  # "ol'", "y'" of "y'all"
        rf"{_LETTER}+[AEIOUYaeiouy]{_APOSTROPHE}[A-Zaeiou]{_LETTER}*",  # "ma'am", "hawai'i"
        rf"{_APOSTROPHE}\d(?:0s|\d(?=\s))",  # "'80s"
        rf"[A-HJ-XZn]{_APOSTROPHE}{_LETTER}{{2,}}",  # "N'Djamena"
        _HYPHENATED,  # "high-pitched", "t-shirt", "5kg"
        rf"{_SLASH_PART}(?:/{_SLASH_PART}){{1,2}}",  # "and/or"
        r"(?:\d{1,4}[- \xa0])?\d{1,4}/\d{1,4}",  # "1 1/2"
        r"[-+]?(?:\d+(?:[.:,]\d+)*|(?:[.:,]\d+)+)",  # "1,000.5", "10:30"
        r"(?:\(\d{2,3}\)[ \xa0]?|(?:\+\+?)?(?:\d{2,4}[- \xa0])?\d{2,4}[- \xa0])\d{3,4}[- \xa0]?\d{3,5}",  # telephone
        r"[A-Z]+(?:[+&][A-Z]+)+",  # "R&B"
        rf"([A-Za-z])\.\s+(?:{_SENTENCE_START})\s",  # "plan b. The", but "plan b. Dogs"
        r"[A-Za-z](?:\.[A-Za-z])*\.|Ph\.D\.?",  # "p.m."
        rf"(?:(?i:{_TITLES})|{_LOWER_TITLES})\.",
        rf"((?:(?i:{_TRAILING})|{_LOWER_TRAILING}|{_CAPITALISED})\.)..",
        r"((?i:nos?|pp|figs?|art|op|prop|ca)\.)(?:[,;:]|\s*\d)",  # "no. 5", but "oh no."
        _DOTTED,  # "u.s.-based"
        rf"((?:{_WORD}|{_HYPHENATED}|{_DOTTED})\.)[,;:]",  # a quirk: "splash., then"
        rf"[#@]{_LETTER}+",
        r"(?:[Cc]\+\+|[CcFf]\#)",
        r"[A-Z]+\$",
        r"&(?:amp|lt|gt|quot|apos|nbsp|mdash);",
        r">?[:;=]['-]?[][()|{@\\DPp](?![A-Za-z0-9])|:[3O]",  # a face
        r"[“”«»‘’‹›‛`\x91-\x94]+",
        r"[?!]{2,}|<<|>>|\*+|_+|\#+",
        r"[-–—―\x96\x97]+|\.{3,}|''|``",
        # Any other sign alone. What is missing here (private use, control characters, emoji) leaves no token.
        r"[\x21-\x7e\x80\x85\x91-\x94\xa1-\xbf×÷\u2016-\u2023\u2026\u2030-\u203b\u203e-\u2044\u2070-\u208e\u20a0-\u20ac"
        r"\u2100-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uffe6]",
    )
)

_PLAIN_WORD = r"[A-Za-z]+(?:-[A-Za-z]+)*"
_PLAIN = re.compile(rf" *(?:{_PLAIN_WORD},? +)*{_PLAIN_WORD}")


def tokenize(caption: str) -> str:
    """The tokens of a caption in lower case, joined by single spaces; punctuation is gone. May be empty."""
    plain = _PLAIN.fullmatch(caption.rstrip(" "))
    words = caption.lower().replace(",", "").split() if plain else None
    if words and _SPLIT.isdisjoint(words):
        return " ".join(words)
    tokens = (_REWRITTEN.get(token, token).lower() for token in _scan(caption))
    return " ".join(token for token in tokens if token and token not in DROPPED)


_SPLIT = {"cannot", "gonna", "wanna", "gotta", "gimme", "lemme"}


def _scan(caption: str) -> Iterator[str]:
    """The pieces of a text by the longest match, before any rewriting."""
    text = caption + "\n\n"
    position = 0
    while position < len(text):
        best = None
        for rule in _RULES:
            match = rule.match(text, position)
            if match and (best is None or match.end() > best.end()):
                best = match
        if text[position].isspace() or best is None:
            position += 1
            continue
        position = best.end(best.lastindex or 0)
        for token in filter(None, best.groups() or [best.group()]):
            if set(token) <= set("-–—―\x96\x97") or (set(token)=={"."}):
                continue
            if re.fullmatch("(?i:['’\x92](?:[msd]|re|ve|ll)|n['’\x92]t)",token):
                token=token.replace("’","'").replace("\x92","'")
            if len(token)>1 and token[0] in ":;=>" and token[-1] in "()[]{":
                token=token[:-1]+(_REWRITTEN[token[-1]] if token[-1] in "()" else token[-1])
            if token[0] in "“”«»‘’‹›‛`\x91\x92\x93\x94" and len(token)>1 and not token[1].isalnum():
                token="".join({"“":"``","«":"``","\x93":"``","”":"''","»":"''","\x94":"''","’":"'","›":"'","\x92":"'"}.get(c,"`") for c in token)
            yield token.strip("\n").replace(" ", "\xa0").replace("\xad", "")
