"""Penn Treebank tokens of a caption, as every captioning paper scores them, without Java.

COCO's caption scorer (Chen et al., arXiv 1504.00325; `PTBTokenizer` of pycocoevalcap) runs Stanford CoreNLP 3.4.1 with
`-lowerCase` and drops punctuation. What that program answers is written down here as a list of patterns, found by
experiment: at each place of the text every pattern is tried, the longest match wins, the first listed wins a tie.

Three of its habits surprise people, and exact scores need them all: "can't" becomes "ca n't"; "p.m." keeps its full
stops; "(" becomes "-lrb-" and stays, since the scorer's list of punctuation spells it in capitals.

Not written down: web addresses, names of files that start with a digit, numbered HTML entities, and which marks are
letters in most scripts other than Latin, Greek, Cyrillic, Arabic, Devanagari and the CJK ones.
"""

import re
from collections.abc import Iterator


# Punctuation that is no token. A run of five and more "-" is one that the scorer does not know, so it stays.
_DROPPED = frozenset(["''", "'", "``", "`", ".", "...", "....", ".....", "?", "!", ",", ":", ";"]) | frozenset(
    "-" * length for length in range(1, 5)
)

_QUOTES = str.maketrans(
    {**dict.fromkeys("“«\x93", "``"), **dict.fromkeys("”»\x94", "''"), **dict.fromkeys("‘‹‛\x91", "`")}
    | {**dict.fromkeys("’›\x92", "'"), '"': "''"}
)
_QUOTE_MARKS = frozenset("“”«»‘’‹›‛\x91\x92\x93\x94\"'`")
_REWRITTEN = {
    **{"[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"€": "$", "\x80": "$", "¤": "$", "₠": "$", "£": "#", "¢": "cents"},
    **{"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
    **{"–": "--", "—": "--", "―": "--", "\x96": "--", "\x97": "--", "…": "...", "\x85": "..."},
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'", "&nbsp;": "-", "&mdash;": "--"},
}

_APOSTROPHE = r"(?:['’\x92]|&apos;)"
_NOT = r"(?i:n(?:['’`\x92]|&apos;)t)"
_ENDING = r"(?i:[msd]|ll|re|ve)"
# Python's \w without digits, "_" and number signs such as ²; then marks that belong to the letter before them.
_LETTER = (
    r"(?:[^\W\d_²³¹¼-¾⁰⁴-⁹₀-₉⅐-↉①-⒛]|[\u02c2-\u02c5\u02d2-\u02df\u02e5-\u036f\u0483-\u0487\u0591-\u05bd"
    r"\u064b-\u065e\u0900-\u0903\u093c-\u094e\xad])"
)
_ALNUM = rf"(?:{_LETTER}|\d)"
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+\."
_WORD = rf"{_LETTER}{_ALNUM}*(?:[.!?]{_LETTER}{_ALNUM}*)*"
_PART = rf"(?:[DLOdlo]{_APOSTROPHE}(?={_ALNUM}{{2}}))?{_ALNUM}+"
_HYPHENATED = rf"{_PART}(?:[-_‐‑]{_PART})*"
_DOTTED = rf"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:{_ACRONYM}|[A-Za-z0-9]+))+"
_SLASH_PART = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_NO_BREAK = r"[^\s\"<>|(){}]"
_TAG_NAME = r"[A-Za-z][A-Za-z0-9_:.-]*"

# Abbreviations: titles, which go before a name; months, states, companies, which may end a sentence; odd cases.
_TITLES = (
    "adj|adm|adv|alex|asst|attys?|ave|brig|capt|cf|cie|cmdr|col|comdr|cpl|dept|det|drs?|elec|ens|ft|gen|govs?|hon|insp|"
    "invt|jos|lieut|lt|maj|messrs|mlle|mme|mrs?|ms|msgr|mt|natl|pfc|ph|pres|profs?|pvt|reps?|rev|sens?|sfc|sgt|spc|ste?|"
    "supts?|treas|vs|wm"
)
_TRAILING = (
    "ala?|apr|ariz|assn|assoc|aug|bhd|bldg|blvd|bros|calif|colo?|conn|corp|cos?|ct|dak|dec|esq|est|etc|ext|feb|fla|fri|"
    "ga|inc|ind|intl|jan|jr|jul|jun|kans?|ky|ltd|mar|md|mich|minn|mo|mont?|neb|nev|nov|oct|okla|penn|plc|rd|rt|sept?|"
    "seq|sq|sr|sys|tel|tenn|thu|thurs|tues?|univ|va|vt|wed|wisc?|wyo"
)
_CASED_TRAILING = (
    "[Pp]p?t[ey]s?|[Bb]ancorp|A[Zz]|A(?:rk|RK)|D(?:el|EL)|I(?:ll|LL)|L[Aa]|P[Aa]|O(?:re|RE)|T(?:ex|EX)|Wash|Miss|Mass"
)
_STARTERS = (
    "A|About|According|After|An|As|At|But|Cannot|He|Her|Here|However|If|In|It|Last|Many|More|Now|Once|One|Other|Our|She|"
    "Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|What|When|While|Yet|You"
)

# The groups of a pattern are its tokens; what it matches after its last group counts for its length only.
_RULES = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rf"<{_TAG_NAME}(?: +{_TAG_NAME}(?:=\"[^\"]*\"|='[^']*')?)* */?>|</{_TAG_NAME}>",  # "<unk>"
        r"(?i:(can)not|(gon|wan)na|(got)ta|(gim|lem)me|('t)(?:is|was))",
        rf"([A-Za-z]*[A-MO-Za-mo-z]){_NOT}",  # the "do" of "don't"
        rf"({_WORD}){_APOSTROPHE}{_ENDING}",  # the "dog" of "dog's"
        _WORD,
        rf"{_APOSTROPHE}{_ENDING}(?![A-Za-z])|[’\x92](?i:n|{_ENDING})",
        _NOT,
        rf"(?i:{_APOSTROPHE}(?:em|till?|cause)|cap'n|c'mon|e'er|ev'ry|li'l|nat'l|o'o|(?:dunkin|somethin){_APOSTROPHE})",
        rf"{_APOSTROPHE}[Nn](?:{_APOSTROPHE}|(?=\s))",  # "rock 'n' roll"
        rf"(?:[Oo]l|[DdJjLl]){_APOSTROPHE}|[Yy]{_APOSTROPHE}(?={_LETTER})",  # "ol'", the "y'" of "y'all"
        rf"{_LETTER}+[AEIOUYaeiouy]{_APOSTROPHE}[A-Zaeiou]{_LETTER}*",  # "ma'am"
        rf"[A-HJ-XZn]{_APOSTROPHE}{_LETTER}{{2,}}",  # "N'Djamena"
        rf"{_APOSTROPHE}(?:[2-9]0s|\d\d(?=\s))",  # "'80s"
        _HYPHENATED,  # "high-pitched", "o'clock", "5kg"
        rf"{_SLASH_PART}(?:/{_SLASH_PART}){{1,2}}",  # "and/or"
        r"(?:\d{1,4}[- \xa0])?\d{1,4}/\d{1,4}|\d{1,2}[-/]\d{1,2}[-/]\d{2,4}",  # "1 1/2", a date
        r"[-+]?(?:\d+(?:[.:,]\d+)*|(?:[.:,]\d+)+)",  # "1,000.5", "10:30"
        r"(?:\(\d{2,3}\)[ \xa0]?|(?:\+\+?)?(?:\d{2,4}[- \xa0])?\d{2,4}[- \xa0])\d{3,4}[- \xa0]?\d{3,5}",  # telephone
        r"[A-Z]+(?:[+&][A-Z]+)+",  # "R&B"
        rf"{_ACRONYM}|[A-Za-z]\.|Ph\.D\.?",  # "p.m.", but not the "B." of "plan B. The":
        rf"([A-Za-z])\.\s+(?:{_STARTERS}|{_STARTERS.upper()})\s",
        rf"(?:(?i:{_TITLES})|[Mm][ft]g)\.",
        rf"((?:(?i:{_TRAILING})|{_CASED_TRAILING})\.)..",
        r"((?i:art|ca|figs?|nos?|op|pp|prop)\.)(?:[,;:]|\s?\d)",  # "no. 5", but not "oh no."
        _DOTTED,  # "u.s.-based"
        rf"((?:{_WORD}|{_HYPHENATED}|{_DOTTED})\.)[,;:]",  # "splash., then": surely not meant, but so it is
        rf"[A-Za-z0-9]{_NO_BREAK}*@(?:{_NO_BREAK[:-1]}.]+\.)*{_NO_BREAK[:-1]}.]+",  # an e-mail address, "dog@home"
        rf"#{_LETTER}+|@[A-Za-z_][A-Za-z0-9_]*|[A-Z]+\$|[Cc]\+\+|[CcFf]\#",
        r"&(?:amp|lt|gt|quot|apos|nbsp|mdash);",
        r">?[:;=]['o*-]?[][()|{@\\DdPpO](?![A-Za-z0-9])|:3",  # a face
        r"[?!]{2,}|<<|>>|\*+|_+|\#+|-{2,}|\.{3,5}|''|[“”«»‘’‹›‛`\x91-\x94]{1,2}",
        # Any other sign by itself. What has no match (emoji, private use, control characters) leaves no token.
        r"[\x21-\x7e\x80\x85\x91-\x97\xa1-\xbf×÷\u2013-\u2023\u2026\u2030-\u2044\u2070-\u208e\u20a0-\u20ac\u2100-\u215e"
        r"\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uffe6]",
    )
)

_BEYOND_BMP = re.compile("[\U00010000-\U0010ffff]")
_CONTRACTION = re.compile(rf"{_APOSTROPHE}{_ENDING}|{_NOT}")
_ABBREVIATION = re.compile(rf"[A-Za-z]|(?i:{_TITLES}|{_TRAILING}|{_CASED_TRAILING}|m[ft]g)")
_PLAIN_WORD = r"[A-Za-z]+(?:-[A-Za-z]+)*"
_PLAIN = re.compile(rf"(?:{_PLAIN_WORD},? +)*({_PLAIN_WORD})(\.?)")
_SPLIT_WORDS = frozenset(["cannot", "gonna", "wanna", "gotta", "gimme", "lemme"])


def ptb_tokenize(caption: str) -> str:
    """
    Tokens of a caption in lower case, punctuation dropped, joined by single spaces; "" where nothing is left.

    A token may hold a no-break space ("1 1/2", a telephone number), so the tokens are what `split(" ")` gives.
    """
    # A short cut that nearly all captions take: words and commas, a full stop after a word that is no abbreviation.
    plain = _PLAIN.fullmatch(caption.strip())
    if plain and not (plain[2] and _ABBREVIATION.fullmatch(plain[1])):
        words = plain[0].removesuffix(".").replace(",", "").lower().split()
        if _SPLIT_WORDS.isdisjoint(words):
            return " ".join(words)
    tokens = (_rewrite(token) for token in _longest_matches(caption))
    return " ".join(token for token in tokens if token and token not in _DROPPED)


def _longest_matches(caption: str) -> Iterator[str]:
    """The pieces of a text as they stand, left to right."""
    text = _BEYOND_BMP.sub(" ", caption) + "\n\n"  # the end of a line is something that patterns look for
    position = 0
    while position < len(text):
        matches = [match for rule in _RULES if (match := rule.match(text, position))]
        if not matches:
            position += 1
            continue
        longest = max(matches, key=lambda match: match.end())
        yield from filter(None, longest.groups() or [longest[0]])
        position = longest.end(longest.lastindex or 0)


def _rewrite(token: str) -> str:
    """A piece of text as the original prints it."""
    if token in _REWRITTEN:
        return _REWRITTEN[token]
    if _QUOTE_MARKS.issuperset(token):
        return token.translate(_QUOTES)
    if _CONTRACTION.fullmatch(token):
        token = re.sub(_APOSTROPHE, "'", token)
    token = token.replace("(", "-lrb-").replace(")", "-rrb-").replace("\xad", "")
    return token.replace(" ", "\xa0").lower()
