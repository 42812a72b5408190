"""The word that stands for a class in a prompt: one that CLIP's tokenizer keeps whole, where the name is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ood_lab.errors import RunError

# CIFAR-100's names of two words, and those of one that is split. DreamOOD tokenises six of these words, too.
_CIFAR100 = {
    "aquarium_fish": "fish", "lawn_mower": "mower", "maple_tree": "maple", "oak_tree": "oak", "palm_tree": "palm",
    "pickup_truck": "pickup", "pine_tree": "pine", "sweet_pepper": "peppers", "willow_tree": "willow",
    "computer_keyboard": "keyboard", "chimpanzee": "chimp",
}  # fmt: skip
# DreamOOD's ImageNet-100, by WordNet id.
_IMAGENET100 = {
    "n01498041": "stingray", "n01514859": "hen", "n01582220": "magpie", "n01608432": "kite", "n01616318": "vulture",
    "n01687978": "agama", "n01776313": "tick", "n01806567": "quail", "n01833805": "hummingbird", "n01882714": "koala",
    "n01910747": "jellyfish", "n01944390": "snail", "n01985128": "crayfish", "n02007558": "flamingo",
    "n02071294": "orca", "n02085620": "chihuahua", "n02114855": "coyote", "n02123045": "tabby",
    "n02128385": "leopard", "n02129165": "lion", "n02129604": "tiger", "n02165456": "ladybug", "n02190166": "fly",
    "n02219486": "ant", "n02226429": "grasshopper", "n02279972": "monarch", "n02317335": "starfish",
    "n02326432": "hare", "n02342885": "hamster", "n02363005": "beaver", "n02391049": "zebra", "n02395406": "hog",
    "n02403003": "ox", "n02422699": "impala", "n02442845": "mink", "n02444819": "otter", "n02480855": "gorilla",
    "n02510455": "panda", "n02640242": "sturgeon", "n02672831": "accordion", "n02687172": "carrier",
    "n02701002": "ambulance", "n02730930": "apron", "n02769748": "backpack", "n02782093": "balloon",
    "n02787622": "banjo", "n02793495": "barn", "n02799071": "baseball", "n02802426": "basketball",
    "n02814860": "beacon", "n02840245": "binder", "n02906734": "broom", "n02948072": "candle", "n02980441": "castle",
    "n02999410": "chain", "n03014705": "chest", "n03028079": "church", "n03032252": "cinema", "n03125729": "cradle",
    "n03160309": "dam", "n03179701": "desk", "n03220513": "dome", "n03249569": "drum", "n03291819": "envelope",
    "n03384352": "forklift", "n03388043": "fountain", "n03450230": "gown", "n03481172": "hammer",
    "n03594734": "jean", "n03594945": "jeep", "n03627232": "knot", "n03642806": "laptop", "n03649909": "mower",
    "n03661043": "library", "n03676483": "lipstick", "n03724870": "mask", "n03733281": "maze",
    "n03759954": "microphone", "n03761084": "microwave", "n03773504": "missile", "n03804744": "nail",
    "n03916031": "perfume", "n03938244": "pillow", "n04004767": "printer", "n04026417": "purse",
    "n04090263": "rifle", "n04133789": "sandal", "n04153751": "screw", "n04296562": "stage", "n04330267": "stove",
    "n04371774": "swing", "n04404412": "television", "n04465501": "tractor", "n04485082": "tripod",
    "n04507155": "umbrella", "n04536866": "violin", "n04579432": "whistle", "n04606251": "wreck",
    "n07714990": "broccoli", "n07745940": "strawberry",
}  # fmt: skip
SYNONYMS = {**_CIFAR100, **_IMAGENET100}


def words_of(classes: Sequence[str], own: Mapping[str, str]) -> tuple[str, ...]:
    """The word of each class: the user's, else the one that is known for its name, else the name with blanks.

    Raises:
        RunError: `own` names a class that there is not, or two classes have one word.
    """
    for name in own:
        if name not in classes:
            raise RunError(f"anchors.words: no class {name!r}; the classes are {', '.join(classes)}")
    words = tuple(own.get(name, SYNONYMS.get(name, name.replace("_", " "))) for name in classes)
    for word, times in Counter(words).items():
        if times > 1:
            alike = ", ".join(name for name, its in zip(classes, words, strict=True) if its == word)
            raise RunError(f"{alike} have one word, {word!r}, and would have one anchor; give others (anchors.words)")
    return words
