"""The table: what an emotion may be called, where it lies on the circumplex, and what it is mixed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BASIC = ("neutral", "happy", "sad", "angry", "surprised", "fearful", "disgusted")


@dataclass(frozen=True)
class Emotion:
    """One entry of the vocabulary.

    Args:
        name: the canonical name.
        aliases: other spellings, among them the labels of the usual data sets (noun forms).
        valence: valence in [-1, 1], unpleasant to pleasant.
        arousal: arousal in [-1, 1], sleepy to activated. Both are approximations, placed by hand to a tenth after the
            circumplex of J. A. Russell ("A circumplex model of affect", J. Pers. Soc. Psychol. 39, 1980). Measured
            values are in lexicons such as NRC-VAD (S. Mohammad, ACL 2018), whose numbers are not copied here because
            commercial use of them needs permission.
        prompt: a full caption for text-guided models.
        phrase: the bare target text that CLIP-guided directions are named by (Asyrp, Kwon et al., ICLR 2023, moves
            "face" to "smiling face").
        mixture: weights of basic emotions, empty for a basic one and never of neutral, which is where every weight
            starts from. 1 is the full basic expression: below 1 is milder, above 1 more intense. A negative weight of
            surprise lowers lids and brows. They say how the emotion looks and are judgements that start from R.
            Plutchik's intensities and dyads ("Emotion: a psychoevolutionary synthesis", 1980) and from the compound
            expressions of S. Du, Y. Tao and A. Martinez (PNAS 111, 2014).
    """

    name: str
    aliases: tuple[str, ...]
    valence: float
    arousal: float
    prompt: str
    phrase: str
    mixture: Mapping[str, float] = field(default_factory=dict, hash=False)


# fmt: off
EMOTIONS = (
    Emotion("neutral", ("neutral expression", "neutral face", "neutrality", "no expression"), 0.0, 0.0,
            "a photo of a calm, neutral face", "neutral face"),
    Emotion("happy", ("happiness", "joy", "smiling", "smile", "cheerful", "glad"), 0.8, 0.4,
            "a photo of a smiling, happy face", "smiling face"),
    Emotion("sad", ("sadness", "unhappy", "unhappiness", "frowning"), -0.7, -0.3,
            "a photo of a sad, unhappy face", "sad face"),
    Emotion("angry", ("anger", "mad"), -0.6, 0.7,
            "a photo of an angry face with lowered brows", "angry face"),
    Emotion("surprised", ("surprise", "astonished", "astonishment", "amazed", "amazement"), 0.2, 0.8,
            "a photo of a surprised face with raised brows and an open mouth", "surprised face"),
    Emotion("fearful", ("fear", "afraid", "scared", "frightened"), -0.6, 0.8,
            "a photo of a fearful, scared face with wide eyes", "fearful face"),
    Emotion("disgusted", ("disgust", "revolted", "repulsed"), -0.6, 0.3,
            "a photo of a disgusted face with a wrinkled nose", "disgusted face"),

    Emotion("joyful", ("joyous", "overjoyed", "elated", "elation", "ecstatic", "euphoric"), 0.9, 0.6,
            "a photo of a joyful, beaming face", "joyful face", {"happy": 1.2}),
    Emotion("delighted", ("delight", "thrilled"), 0.9, 0.6,
            "a photo of a delighted, radiant face", "delighted face", {"happy": 0.9, "surprised": 0.3}),
    Emotion("excited", ("excitement", "enthusiastic", "enthusiasm", "eager"), 0.8, 0.8,
            "a photo of an excited, enthusiastic face", "excited face", {"happy": 0.8, "surprised": 0.5}),
    Emotion("pleasantly surprised", ("happily surprised", "pleasant surprise"), 0.6, 0.8,
            "a photo of a pleasantly surprised, smiling face", "pleasantly surprised face",
            {"happy": 0.6, "surprised": 0.7}),
    Emotion("amused", ("amusement", "entertained", "laughing", "laughter"), 0.7, 0.5,
            "a photo of an amused, laughing face", "amused face", {"happy": 0.9, "surprised": 0.2}),
    Emotion("content", ("contented", "contentment", "satisfied", "satisfaction", "pleased"), 0.7, -0.4,
            "a photo of a content, gently smiling face", "content face", {"happy": 0.4}),
    Emotion("serene", ("serenity", "calm", "calmness", "peaceful", "relaxed", "tranquil"), 0.6, -0.6,
            "a photo of a serene, relaxed face", "serene face", {"happy": 0.3, "surprised": -0.2}),
    Emotion("loving", ("love", "affectionate", "affection", "tender", "tenderness"), 0.8, 0.2,
            "a photo of a loving, tender face", "loving face", {"happy": 0.6, "sad": 0.1}),
    Emotion("hopeful", ("hope", "optimistic", "optimism"), 0.6, 0.3,
            "a photo of a hopeful, optimistic face", "hopeful face", {"happy": 0.4, "surprised": 0.3}),
    Emotion("proud", ("pride",), 0.7, 0.4,
            "a photo of a proud, confident face", "proud face", {"happy": 0.6, "angry": 0.1}),
    Emotion("relieved", ("relief",), 0.6, -0.3,
            "a photo of a relieved face", "relieved face", {"happy": 0.5, "sad": 0.2}),
    Emotion("awe", ("awed", "awestruck", "in awe", "wonder"), 0.4, 0.6,
            "a photo of an awestruck face, full of wonder", "awestruck face",
            {"surprised": 0.7, "happy": 0.3, "fearful": 0.1}),
    Emotion("interested", ("interest", "curious", "curiosity", "intrigued"), 0.4, 0.4,
            "a photo of an interested, curious face", "curious face", {"surprised": 0.4, "happy": 0.2}),

    Emotion("nostalgic", ("nostalgia", "wistful", "wistfulness", "bittersweet"), 0.1, -0.2,
            "a photo of a nostalgic, wistfully smiling face", "nostalgic face", {"happy": 0.3, "sad": 0.4}),
    Emotion("pensive", ("pensiveness", "thoughtful", "contemplative"), -0.2, -0.3,
            "a photo of a pensive, thoughtful face", "pensive face", {"sad": 0.3, "angry": 0.1}),
    Emotion("determined", ("determination", "focused", "concentrating"), 0.1, 0.5,
            "a photo of a determined, focused face", "determined face", {"angry": 0.3}),
    Emotion("confused", ("confusion", "puzzled", "perplexed", "bewildered"), -0.3, 0.3,
            "a photo of a confused, puzzled face", "confused face", {"angry": 0.3, "surprised": 0.3}),
    Emotion("skeptical", ("skepticism", "sceptical", "doubtful", "doubt", "suspicious", "suspicion"), -0.3, 0.1,
            "a photo of a skeptical, doubtful face", "skeptical face",
            {"disgusted": 0.3, "surprised": 0.2, "angry": 0.2}),
    Emotion("bored", ("boredom", "uninterested", "indifferent"), -0.4, -0.7,
            "a photo of a bored, uninterested face", "bored face", {"sad": 0.3, "disgusted": 0.2, "surprised": -0.3}),
    Emotion("tired", ("tiredness", "exhausted", "weary", "sleepy", "fatigue", "fatigued"), -0.2, -0.8,
            "a photo of a tired, sleepy face", "tired face", {"sad": 0.4, "surprised": -0.4}),

    Emotion("melancholy", ("melancholic", "gloomy", "gloom", "depressed"), -0.6, -0.5,
            "a photo of a melancholy, gloomy face", "melancholy face", {"sad": 0.6}),
    Emotion("lonely", ("loneliness", "lonesome"), -0.6, -0.4,
            "a photo of a lonely, forlorn face", "lonely face", {"sad": 0.7, "fearful": 0.1}),
    Emotion("disappointed", ("disappointment", "let down"), -0.6, -0.2,
            "a photo of a disappointed face", "disappointed face", {"sad": 0.6, "surprised": 0.2, "disgusted": 0.1}),
    Emotion("hurt", ("wounded", "upset", "sadly angry"), -0.6, 0.2,
            "a photo of a hurt, upset face", "hurt face", {"sad": 0.6, "angry": 0.3}),
    Emotion("grief", ("grieving", "sorrow", "sorrowful", "heartbroken", "despair", "miserable", "crying"), -0.9, 0.1,
            "a photo of a grieving, heartbroken face", "grieving face", {"sad": 1.1, "fearful": 0.3}),
    Emotion("shame", ("ashamed", "humiliated", "humiliation"), -0.7, 0.1,
            "a photo of an ashamed face with lowered eyes", "ashamed face",
            {"sad": 0.6, "fearful": 0.3, "disgusted": 0.2}),
    Emotion("guilty", ("guilt", "remorse", "remorseful", "regret", "regretful"), -0.7, 0.2,
            "a photo of a guilty, remorseful face", "guilty face", {"sad": 0.6, "fearful": 0.4}),
    Emotion("embarrassed", ("embarrassment", "sheepish", "bashful", "shy"), -0.4, 0.3,
            "a photo of an embarrassed face with a sheepish smile", "embarrassed face",
            {"fearful": 0.5, "happy": 0.3, "sad": 0.3}),

    Emotion("jealousy", ("jealous",), -0.7, 0.5,
            "a photo of a jealous face", "jealous face", {"angry": 0.5, "sad": 0.3, "fearful": 0.2}),
    Emotion("envy", ("envious",), -0.5, 0.3,
            "a photo of an envious face", "envious face", {"sad": 0.4, "angry": 0.4}),
    Emotion("annoyed", ("annoyance", "fed up"), -0.5, 0.4,
            "a photo of an annoyed face", "annoyed face", {"angry": 0.4}),
    Emotion("irritated", ("irritation", "irritable"), -0.5, 0.5,
            "a photo of an irritated face", "irritated face", {"angry": 0.5, "disgusted": 0.2}),
    Emotion("frustrated", ("frustration", "exasperated", "exasperation"), -0.6, 0.5,
            "a photo of a frustrated, exasperated face", "frustrated face", {"angry": 0.6, "sad": 0.3}),
    Emotion("bitter", ("bitterness", "resentful", "resentment"), -0.6, 0.2,
            "a photo of a bitter, resentful face", "bitter face", {"angry": 0.4, "sad": 0.3, "disgusted": 0.3}),
    Emotion("contempt", ("contemptuous", "scorn", "scornful", "disdain", "disdainful"), -0.6, 0.3,
            "a photo of a contemptuous, sneering face", "contemptuous face",
            {"disgusted": 0.6, "angry": 0.3, "happy": 0.1}),
    Emotion("hateful", ("hatred", "hate", "loathing"), -0.9, 0.6,
            "a photo of a hateful, hostile face", "hateful face", {"angry": 0.8, "disgusted": 0.6}),
    Emotion("furious", ("fury", "rage", "enraged", "outraged", "outrage"), -0.8, 0.9,
            "a photo of a furious, enraged face", "furious face", {"angry": 1.3}),

    Emotion("worried", ("worry", "concerned", "concern"), -0.5, 0.4,
            "a photo of a worried, concerned face", "worried face", {"fearful": 0.4, "sad": 0.4}),
    Emotion("anxious", ("anxiety", "nervous", "tense", "uneasy", "apprehensive", "stressed"), -0.5, 0.6,
            "a photo of an anxious, nervous face", "anxious face", {"fearful": 0.6, "sad": 0.2}),
    Emotion("shocked", ("shock", "stunned", "startled", "fearfully surprised"), -0.2, 0.9,
            "a photo of a shocked, stunned face", "shocked face", {"surprised": 0.8, "fearful": 0.4}),
    Emotion("appalled", ("dismayed", "dismay", "aghast"), -0.7, 0.5,
            "a photo of an appalled, dismayed face", "appalled face", {"disgusted": 0.7, "surprised": 0.4}),
    Emotion("horrified", ("horror",), -0.9, 0.8,
            "a photo of a horrified face", "horrified face", {"fearful": 0.9, "disgusted": 0.4, "surprised": 0.2}),
    Emotion("terrified", ("terror", "panic", "panicked"), -0.9, 0.9,
            "a photo of a terrified, panicking face", "terrified face", {"fearful": 1.3}),
)
# fmt: on
