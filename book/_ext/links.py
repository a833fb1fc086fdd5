"""Equations, code and its documentation linked in both directions, without marks for it in chapters and docstrings.

- An equation of the paper, labelled eq-paper-08, has the paper's number (8) instead of one counted by Sphinx.
- "Equation (8)" in a docstring links to where it is derived.
- `qmvae_core.losses.elbo` in a text links to its docstring on the page of the API.
- `references.md#kingma2014vae`, a link that reads as one in JupyterLab too, leads to that entry of the bibliography.
- Docstrings are plain text; here they become reStructuredText.
"""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util.nodes import make_refnode

LABEL = re.compile(r"eq-paper-(\d+)")
NAME = re.compile(r"qmvae_(?:core|study|neighbours)(\.\w+)+")
REFERENCES = "book/references"
NUMBER = re.compile(r"\((\d{1,2})\)")
CODE = re.compile(r"(`[^`]+`)")


def number_as_the_paper(app, document):
    """Give each labelled equation of the paper the paper's number, here and for all references to it."""
    known = app.env.get_domain("math").equations
    for equation in document.findall(nodes.math_block):
        if found := LABEL.fullmatch(equation.get("label") or ""):
            equation["number"] = int(found[1])
            known[equation["label"]] = (app.env.docname, int(found[1]))


class LinkNames(SphinxTransform):
    """Each full name of the library that a page writes as code becomes a link to its documentation."""

    default_priority = 500

    def apply(self, **kwargs):
        """Replace them in the document; a name that is not documented is a warning."""
        for literal in list(self.document.findall(nodes.literal)):
            if NAME.fullmatch(literal.astext()) and not isinstance(literal.parent, addnodes.pending_xref):
                link = addnodes.pending_xref(
                    "", refdomain="py", reftype="obj", reftarget=literal.astext(), refdoc=self.env.docname,
                    refwarn=True, refexplicit=False,
                )  # fmt: skip
                literal.replace_self(link)
                link += literal


class LinkEntries(SphinxTransform):
    """Each link to an entry of the page of references becomes a reference, which `lead_to_entry` resolves."""

    default_priority = 500

    def apply(self, **kwargs):
        """Replace them in the document; an entry that is not in the bibliography is a warning."""
        for link in self.document.findall(addnodes.pending_xref):
            if link["reftarget"] == REFERENCES and (key := link.get("reftargetid")):
                link.attributes |= {"refdomain": "", "reftype": "entry", "reftarget": key, "refwarn": True}


def lead_to_entry(app, env, node, content):
    """The address of the entry that a link names by its key."""
    found = [each for each in env.get_domain("cite").citations if each.key == node["reftarget"]]
    if node["reftype"] == "entry" and found:
        return make_refnode(app.builder, node["refdoc"], REFERENCES, found[0].citation_id, content)


def restructured(line: str) -> str:
    """One line of a plain docstring, so that nothing in it is taken for markup but code."""
    parts = CODE.split(line)
    for i, part in enumerate(parts):
        parts[i] = f"`{part}`" if i % 2 else re.sub(r"([\\*|_])", r"\\\1", part)
    return "".join(parts)


def read_docstring(app, what, name, object_, options, lines):
    """Turn a docstring into reStructuredText, its tables into literal text, its equations into links."""
    found, table = [], False
    for line in lines:
        row = line.lstrip().startswith("|")
        if row and not table:
            found += ["::", ""]
        elif table and not row:
            found.append("")
        table = row
        found.append(f"    {line}" if row else restructured(line))
    text = "\n".join(found)
    first, *rest = text.split("\n\n")
    if "quation" in first:
        first = NUMBER.sub(lambda number: f":eq:`eq-paper-{int(number[1]):02d}`", first)
    lines[:] = "\n\n".join([first, *rest]).split("\n")


def skip_what_is_not_ours(app, what, name, object_, skip, options):
    """Leave out fields of named tuples, which Python describes by their position alone, and what matplotlib adds."""
    of_matplotlib = (getattr(object_, "__module__", None) or "").startswith("matplotlib")
    return True if of_matplotlib or (object_.__doc__ or "").startswith("Alias for field number") else None


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-read", number_as_the_paper)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-skip-member", skip_what_is_not_ours)
    app.connect("missing-reference", lead_to_entry)
    app.add_transform(LinkNames)
    app.add_transform(LinkEntries)
    return {"version": "1", "parallel_read_safe": True}
