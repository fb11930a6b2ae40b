"""The vocabulary: what an emotion may be called, what it is mixed from, and the algebra on names.

Seven basic emotions are what editors are fitted on: Ekman's six (P. Ekman, "An argument for basic emotions", Cognition
and Emotion 6, 1992) and neutral. Every other name is *nuanced*: it resolves to a documented mixture of basic ones, so
that an editor that was never shown shame can still attempt it.
"""

from emoedit.emotions.algebra import parse as parse
from emoedit.emotions.algebra import resolve as resolve
from emoedit.emotions.algebra import smile_reduction as smile_reduction
from emoedit.emotions.names import canonical as canonical
from emoedit.emotions.names import fold_name as fold_name
from emoedit.emotions.names import get as get
from emoedit.emotions.names import list_emotions as list_emotions
from emoedit.emotions.names import unknown_name as unknown_name
from emoedit.emotions.valence import circumplex as circumplex
from emoedit.emotions.valence import place as place
from emoedit.emotions.vocabulary import BASIC as BASIC
from emoedit.emotions.vocabulary import Emotion as Emotion
