"""A few documents of two desks, and the settings that read them."""

from moe.data.data import Data
from moe.data.sources.documents import Document

L = 8


DATA = Data(tokenizer="bytes", sequence_length=L, held_out_windows=5)


def some_documents():
    """60 documents of two desks and three classes; no two share a word."""
    documents = []
    for number in range(60):
        desk, label = ("north", "north/a") if number < 30 else ("south", f"south/{number % 2}")
        text = " ".join(f"{desk[0]}{number}w{word}" for word in range(20 + number % 7))
        documents.append(Document(f"{desk}/{number}", desk, label, str(number), text))
    return documents
