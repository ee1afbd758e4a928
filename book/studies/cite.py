"""What the pages say of their sources: BibTeX, the line under each figure and table, and three pages.

The pages on citing, on all figures, and on the paper and this run have placeholders, which are filled in whenever the
book is built, from the registry and the records of that run.
"""

from __future__ import annotations

import ast
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import yaml
from nbformat import NotebookNode

from studies import figures, front, headlines, ids, interactive, last_good, provenance, registry, remake, status
from studies.provenance import Record
from studies.registry import Claim, Entry

# Where the files of figures lie, beside the pages; `html_extra_path` copies them.
FOLDER = Path("book", "_extra", "figures")
# What follows the id of a figure in the name of its picture for dark pages.
NIGHT = "-night.svg"
# Modules that no figure changes with; what each figure does hang on is not worth finding out.
UNDRAWN = {"cite", "prose", "registry", "runs", "slices"}
# The figure that the page on citing takes as its example.
EXAMPLE = "fig-training"
PAGES = tuple(Path("book", name) for name in ("cite.md", "gallery.md", "paper_and_this_run.md"))
PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
# A number of page one, in the words of a claim.
FRONT = re.compile(r"\{\{ front\.(\w+) \}\}")
LICENCE = "CC BY 4.0"


def software() -> dict:
    """Return the metadata of ``CITATION.cff``."""
    return yaml.safe_load((provenance.root() / "CITATION.cff").read_text("utf-8"))


def names() -> str:
    """Return the authors of the software as BibTeX takes them, groups in braces."""
    people = [
        f"{{{author['name']}}}" if "name" in author else f"{author['family-names']}, {author['given-names']}"
        for author in software()["authors"]
    ]
    return " and ".join(people)


def bibtex(key: str, title: str, note: str, year: str, **more: str) -> str:
    """Return an entry of BibTeX for this software, or a part of it.

    Args:
        key: Of the entry.
        title: As it stands, without braces around it.
        note: Version, commit and what else says which state is meant.
        year: Four digits.
        more: Further fields.

    Example:
        >>> "@misc{a" in bibtex("a", "B", "C", "2026")
        True
    """
    meta = software()
    address = {"url": meta["repository-code"]} if "repository-code" in meta else {}
    fields = {"author": names(), "title": title, "year": year, "version": str(meta["version"]), "note": note}
    lines = [f"  {name} = {{{value}}}," for name, value in (fields | more | address).items()]
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def state(source: dict) -> str:
    """Return the commit that a record was computed at, and whether files had been changed since."""
    return f"commit {source['commit'][:10]}" + (" with uncommitted changes" if source["dirty"] else "")


def tex(text: str) -> str:
    """Return a caption as LaTeX reads it: what has a meaning there is escaped outside of formulas.

    Example:
        >>> tex("1 % of $a_1$, a_b")
        '1 \\\\% of $a_1$, a\\\\_b'
    """
    parts = text.split("$")
    return "$".join(re.sub(r"([%&#_])", r"\\\1", x) if i % 2 == 0 else x for i, x in enumerate(parts))


def figure_bibtex(entry: Entry, records: Sequence[Record]) -> str:
    """Return the BibTeX of one figure or table; its note has the first sentence of the caption, and each record."""
    source, *_ = sources = [record.provenance for record in records]
    computed = " and ".join(dict.fromkeys(f"{state(own)}, computed {own['date'][:10]}" for own in sources))
    made = f"Version {software()['version']}, {computed}, {LICENCE}"
    note = f"{tex(first(entry.caption))} {made}"
    title = f"{entry.kind.title()} {entry.id} of {{{software()['title']}}}"
    key = f"neumatc-companion-{entry.id}-{source['commit'][:7]}"
    return bibtex(key, title, note, source["date"][:4])


def sources(entry: Entry, profile: str) -> list[Record]:
    """Return the records that an entry shows: of the runs of a profile, or published, and of last good timings.

    What an interactive figure shows without one is computed here and now, of which the record says the day.

    Raises:
        FileNotFoundError: If one is not there; the message has the command that makes it.
    """
    if entry.chapter == ids.INTERACTIVE:
        return [interactive.costs() if entry.records else _computed(entry)]
    replaced = remake.absent(entry, profile)[0]
    # A published record in the place of a run is cited as a whole.
    found = [
        provenance.load(name) if kept or name in replaced else provenance.load(name, profile, part)
        for name, kept, part in entry.records
    ]
    found += [_kept(record) for record in found if remake.timed_before(entry, profile, record)]
    return found + [provenance.load(name) for name in status.BEGUN.get(entry.chapter, ()) if profile == "cpu"]


def _computed(entry: Entry) -> Record:
    now = Record(entry.chapter, profile="cpu", device="cpu", seed=0)
    own = {"date": now.provenance["date"][:10], "command": f"make figure ID={entry.id}"}
    return replace(now, provenance=now.provenance | own)


def _kept(record: Record) -> Record:
    """Return the published record that has the last good timings of a chapter."""
    return provenance.load(last_good.kept_as(record.chapter))


def origin(claim: Claim, profile: str) -> Record:
    """Return the record that the number of a claim comes from; that of a part, where the run took it.

    Where a timing was refused, that is the record of the last good ones, as in the chapter.
    """
    if claim.record:
        return provenance.load(claim.record)
    record = provenance.load(claim.chapter, None if claim.published else profile)
    if not claim.published and _unknown(claim, record) and not _unknown(claim, filled := last_good.fill(record)):
        return replace(filled, provenance=_kept(record).provenance)
    return provenance.of_part(record, provenance.taken_part(record, claim.path))


def _unknown(claim: Claim, record: Record) -> bool:
    return any(map(math.isnan, claim.values(record)))


def credit(entry: Entry, records: Sequence[Record]) -> str:
    """Return one line on where an entry comes from, for the metadata of its files."""
    states = " and ".join(dict.fromkeys(state(record.provenance) for record in records))
    return f"{entry.id}, {software()['title']}, version {software()['version']}, {states}, {LICENCE}"


def described(entry: Entry, records: Sequence[Record], files: Sequence[str]) -> dict:
    """Return all that the registry says of an entry, as JSON can hold it."""
    return {
        "id": entry.id,
        "kind": entry.kind,
        "caption": entry.caption,
        "alt": entry.alt,
        "chapter": entry.chapter,
        "page": entry.page,
        "cell": entry.cell,
        "script": entry.script,
        "files": list(files),
        "command": f"make figure ID={entry.id}",
        "bibtex": figure_bibtex(entry, records),
        "records": [
            {
                "chapter": record.chapter,
                "parameters": {"profile": record.profile, "device": record.device, "seed": record.seed},
                **{
                    key: record.provenance[key] for key in ("date", "commit", "dirty", "command", "machine", "versions")
                },
                **({"seconds": took} if (took := _seconds(record)) is not None else {}),
            }
            for record in records
        ],
    }


def _seconds(record: Record) -> float | None:
    """Return what the run of a record took, None where it was not kept."""
    return record.provenance.get("notebook_seconds", record.provenance.get("wall_seconds"))


def staged(pages: Mapping[str, NotebookNode], texts: Mapping[Path, bytes], profile: str = "cpu") -> dict[Path, bytes]:
    """Return what the pages need for citing, by path in the stage of the book: files of figures, registry, three pages.

    Args:
        pages: The chapters in the order of the book, with the outputs that their pages show.
        texts: The other files of the stage; the page on citing is taken from them.
        profile: Of the runs.
    """
    files, rows = {}, []
    for entry in registry.page_entries() + registry.entries(list(pages)):
        if entry.cell:
            # Where times were refused, the page has another caption.
            on_page = registry.labels(next(cell for cell in pages[entry.chapter].cells if cell.id == entry.cell))[1]
            entry = replace(entry, caption=on_page["caption"], alt=on_page.get("alt", ""))
        records = sources(entry, profile)
        tabulated = entry.kind == "table" and entry.cell
        made = _tabulated(entry, pages[entry.chapter]) if tabulated else _drawn(entry, records, profile)
        files |= {FOLDER / name: content for name, content in made.items()}
        rows.append(described(entry, records, list(made)))
        if entry.kind == "figure":
            night = figures.night_svg(made[f"{entry.id}.svg"].decode())
            files[FOLDER / f"{entry.id}{NIGHT}"] = night.encode()
    claims = [(claim, origin(claim, profile)) for claim in registry.claims()]
    everything = {"entries": rows, "claims": [_claimed(*pair) for pair in claims], "numbers": _numbers(profile)}
    files[FOLDER / "registry.json"] = (json.dumps(everything, indent=1, ensure_ascii=False) + "\n").encode()
    titles = {chapter: title(page) for chapter, page in pages.items()}
    references = texts[Path("book", "references.bib")].decode()
    values = examples(rows, references) | {
        "gallery": gallery(rows, {ids.FRONT: "Page one"} | titles | {ids.INTERACTIVE: "Try it yourself"}),
        "stated": comparison([pair for pair in claims if pair[0].stated], titles),
        "open": comparison([pair for pair in claims if not pair[0].stated], titles),
    }
    for path in PAGES:
        files[path] = PLACEHOLDER.sub(lambda found: values[found[1]], texts[path].decode()).encode()
    return files


def _claimed(claim: Claim, record: Record) -> dict:
    """Return a claim with its number and what follows from it, as JSON can hold it."""
    source = {key: record.provenance[key] for key in ("date", "commit", "dirty")}
    values = provenance.plain(claim.values(record), claim.id)
    # As Sphinx does with the pages.
    words = {"ours": claim.ours, "if_so": claim.if_so, "verdict": claim.verdict(record)}
    for name, text in words.items():
        words[name] = FRONT.sub(lambda found: front.numbers(front.records())[found[1]], text)
    return asdict(claim) | words | {"values": values, "profile": record.profile, **source}


def _numbers(profile: str) -> list[dict]:
    """Return the headline numbers as published, with their tolerances, as JSON can hold them."""
    values = headlines.expected(profile)["values"]
    return [
        asdict(h) | {"published": values[h.id], "tolerance": headlines.tolerance(h)}
        for h in headlines.HEADLINES
        if h.id in values
    ]


def title(page: NotebookNode) -> str:
    """Return the title of a chapter, its first heading."""
    return next(found[1] for cell in page.cells if (found := re.match(r"# (.+)", cell.source)))


def _drawn(entry: Entry, records: Sequence[Record], profile: str) -> dict[str, bytes]:
    """Return the files of a figure by name, drawn again only when something that it hangs on has changed."""
    root = provenance.root()
    folder = root / "_build" / "figures" / profile
    code = "\n".join(map(ast.unparse, remake.statements(entry, profile)))
    digest = hashlib.sha256(json.dumps([code, entry.id, [record.provenance for record in records]]).encode())
    studies = [path for path in (root / "book" / "studies").glob("*.py") if path.stem not in UNDRAWN]
    for path in sorted([*studies, *(root / "neumatc").rglob("*.py")]):
        digest.update(path.read_bytes())
    key = folder / f"{entry.id}.key"
    if not (key.is_file() and key.read_text("utf-8") == digest.hexdigest()):
        remake.write(entry, profile, folder, credit(entry, records))
        key.write_text(digest.hexdigest(), "utf-8")
    paths = [folder / f"{entry.id}.{kind}" for kind in remake.FORMATS["figure"]]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def _tabulated(entry: Entry, page: NotebookNode) -> dict[str, bytes]:
    """Return the file of a table by name, from what the page shows."""
    cell = next(cell for cell in page.cells if cell.id == entry.cell)
    texts = [output["data"]["text/markdown"] for output in cell.outputs if "text/markdown" in output.get("data", {})]
    header, _, *rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in "".join(texts[-1]).splitlines()]
    cells = [[re.sub(r"\\([|\"])", r"\1", text.strip()) for text in row] for row in (header, *rows)]
    return {f"{entry.id}.csv": remake.as_csv(cells).encode()}


def gallery(rows: Sequence[dict], titles: Mapping[str, str]) -> str:
    """Return pictures and links of all figures and tables, as Markdown.

    Args:
        rows: What the registry says of each.
        titles: Of the chapters, by name, in the order of the book.
    """
    lines = []
    for chapter, heading in titles.items():
        own = [row for row in rows if row["chapter"] == chapter]
        if not own:
            continue
        lines += ["", f"## {heading}", ""]
        page = f"../{own[0]['page']}.html"
        for row in (row for row in own if row["kind"] == "figure"):
            picture = "".join(
                f'<img class="dark-light {time}" src="../figures/{row["id"]}{suffix}" alt="{html.escape(row["alt"])}" '
                'loading="lazy">'
                for time, suffix in (("day", ".svg"), ("night", NIGHT))
            )
            lines += ['<div class="gallery">', f'<a href="{page}#{row["id"]}">{picture}</a>', "</div>", ""]
            lines += [f'<a href="{page}#{row["id"]}"><code>{row["id"]}</code></a>: {first(row["caption"])}', ""]
        for row in (row for row in own if row["kind"] != "figure"):
            lines += [f'- <a href="{page}#{row["id"]}"><code>{row["id"]}</code></a>: {first(row["caption"])}']
    return "\n".join(lines).strip()


def first(caption: str) -> str:
    """Return the first sentence of a caption.

    Example:
        >>> first("The map $X(p) = C$. A network turns it.")
        'The map $X(p) = C$.'
    """
    return re.split(r"(?<=[.?])\s", caption.strip(), maxsplit=1)[0]


def shown(values: Sequence[float]) -> str:
    """Return a number, or the median and the quartiles of a timing, as a page shows it.

    Example:
        >>> shown([0.0123]), shown([19.0]), shown([1.0, 2.0, 3.0]), shown([0.0])
        ('0.0123', '19', '2 (1 to 3)', '0')
    """
    low, *rest = (f"{value:.3g}" for value in values)
    return f"{rest[0]} ({low} to {rest[1]})" if rest else low


def comparison(claims: Sequence[tuple[Claim, Record]], titles: Mapping[str, str]) -> str:
    """Return claims or questions beside numbers of this run, as a table in Markdown.

    Args:
        claims: Each with the record that its number is in.
        titles: Of the chapters, by name.
    """
    lines, before = ["| | this run | verdict |", "|---|---|---|"], None
    for claim, record in claims:
        limit = "" if claim.above is None and claim.below is None else f"; asked: {_asked(claim)}"
        source = f"{record.profile}, {record.provenance['date'][:10]}, {state(record.provenance)}"
        chapter = f"{{doc}}`{titles[claim.chapter]} <../notebooks/{claim.chapter}>`"
        number = f"**{shown(claim.values(record))}**: {claim.ours}{limit} ({chapter}, {source})"
        # A claim with several numbers stands once.
        lines.append(f"| {'' if claim.paper == before else claim.paper} | {number} | {claim.verdict(record)} |")
        before = claim.paper
    return "\n".join(lines)


def _asked(claim: Claim) -> str:
    if claim.asked:
        return claim.asked
    return f"more than {claim.above:g}" if claim.above is not None else f"less than {claim.below:.7g}"


def examples(rows: Sequence[dict], references: str) -> dict[str, str]:
    """Return what the page on citing shows, by placeholder.

    Args:
        rows: What the registry says of figures and tables.
        references: The bibliography, which holds the paper.
    """
    meta, source = software(), Record("book", profile="cpu", device="cpu", seed=0).provenance
    row = next((row for row in rows if row["id"] == EXAMPLE), rows[0])
    authors = " and ".join(author["name"] for author in meta["authors"])
    commit = row["records"][0]["commit"][:10]
    note, year = f"Version {meta['version']}, {state(source)}", source["date"][:4]
    return {
        "software": bibtex("neumatc-companion", f"{{{meta['title']}}}", note, year),
        "paper": re.search(r"@\w+\{neumatc,.*?\n\}", references, re.DOTALL)[0],
        "example": row["bibtex"],
        "sentence": f"{row['kind'].title()} `{row['id']}` of {authors}, *{meta['title']}*, version {meta['version']}, "
        f"commit {commit}, {LICENCE}.",
        "id": row["id"],
    }
