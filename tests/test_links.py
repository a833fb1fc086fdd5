"""The book's extension: docstrings become markup that says what they say, and equations get the paper's numbers."""

from types import SimpleNamespace

import links
from docutils import nodes

from qmvae_core.gaussians import DiagonalGaussian
from qmvae_study.report import figures


def read(text: str) -> str:
    lines = text.split("\n")
    links.read_docstring(None, "function", "name", None, None, lines)
    return "\n".join(lines)


def test_nothing_but_code_is_markup():
    assert read("a * b of q(z|x), mu_*, and `mu_x`") == r"a \* b of q(z\|x), mu\_\*, and ``mu_x``"


def test_equations_of_the_first_paragraph_alone_become_links():
    assert read("Equations (3) and (10): ln p.\n\nShapes (2) stay.") == (
        "Equations :eq:`eq-paper-03` and :eq:`eq-paper-10`: ln p.\n\nShapes (2) stay."
    )
    assert read("A pair (2) of digits.") == "A pair (2) of digits."


def test_a_table_stays_as_it_is_written():
    assert read("Head\n\n| a | b_ |\n| c | d |\n\nTail") == "Head\n\n::\n\n    | a | b_ |\n    | c | d |\n\n\nTail"


def test_a_labelled_equation_has_the_papers_number_for_itself_and_its_references():
    known = {"eq-paper-08": ("chapter", 3)}
    app = SimpleNamespace(env=SimpleNamespace(get_domain=lambda _: SimpleNamespace(equations=known), docname="chapter"))
    document = nodes.section()
    document += [nodes.math_block("", "", label="eq-paper-08", number=3), nodes.math_block("", "", label=None)]
    links.number_as_the_paper(app, document)
    assert document[0]["number"] == 8
    assert known == {"eq-paper-08": ("chapter", 8)}


def test_what_python_and_matplotlib_add_to_our_classes_has_no_entry():
    skipped = {
        name: links.skip_what_is_not_ours(None, "class", name, member, False, None)
        for name, member in (
            ("mean", DiagonalGaussian.mean),
            ("sample", DiagonalGaussian.sample),
            ("set", figures.Picture.set),
        )
    }
    assert skipped == {"mean": True, "sample": None, "set": True}
