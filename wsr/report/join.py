"""Several studies as one document."""

from collections import Counter
from collections.abc import Sequence

from wsr.report.document import VERDICTS, Document


def join(documents: Sequence[Document]) -> Document:
    """Returns a document of all sections; a single document stays as it is.

    Facts that all documents share are told once, others with the document they belong to; the commands stand in the
    sections.
    """
    if len(documents) == 1:
        return documents[0]
    sections = tuple(section for document in documents for section in document.sections)
    verdicts = Counter(section.verdict for section in sections)
    told = ", ".join(f"{verdict} {verdicts[verdict]}" for verdict in VERDICTS if verdicts[verdict])
    names = dict.fromkeys(name for document in documents for name in document.facts if name != "command")
    facts = {"Studies": ", ".join(document.title for document in documents)}
    for name in names:
        values = {document.title: document.facts[name] for document in documents if name in document.facts}
        same = len(values) == len(documents) and len(set(values.values())) == 1
        facts[name] = next(iter(values.values())) if same else "; ".join(f"{k}: {v}" for k, v in values.items())
    return Document(
        f"{len(documents)} studies of a region in weight space",
        (f"{len(sections)} questions of {len(documents)} studies. Verdicts: {told}.",),
        facts,
        sections,
    )
