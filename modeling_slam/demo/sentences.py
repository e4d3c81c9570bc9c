"""Sentences of the demo's small world: who does what, where and when, in English, Dutch and Danish.

A language is a handful of patterns over word lists, about a hundred words in all, so that a tiny LLM can
know the language and a few hundred clips can teach a projector. The patterns give hundreds of thousands of
sentences; `split_sentences` draws disjoint ones for training, validation and test. To change what is said,
edit a `Grammar`; to add a language, add one to `GRAMMARS`. All sentences are this project's own.
"""

import random
import re
from dataclasses import dataclass

SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Grammar:
    """Patterns with `{slots}`, and the words for each; Dutch and Danish patterns put the verb second."""

    patterns: tuple[str, ...]
    words: dict[str, tuple[str, ...]]

    def sentence(self, rng: random.Random) -> str:
        """A sentence with a capital and a full stop or question mark; no word list is used twice alike."""
        used: set[str] = set()

        def pick(slot: re.Match[str]) -> str:
            word = rng.choice([word for word in self.words[slot[1]] if word not in used])
            used.add(word)
            return word

        text = SLOT.sub(pick, rng.choice(self.patterns))
        return text[0].upper() + text[1:]


def listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


ENGLISH = Grammar(
    patterns=(
        "{time} {who} {buys} {thing} {place}.",
        "{who} {buys} {thing} {place}.",
        "{who} {buys} {number} {things} {place}.",
        "I saw {number} {things} {place} {time}.",
        "Where is {thing}?",
        "{who} is {state} because {thing} is {quality}.",
        "We meet {who} {place} at {number} o'clock.",
        "{thing} lies {place} and is {quality}.",
        "Does {who} have {number} {things}?",
    ),
    words={
        "who": listed(
            "the farmer, the old teacher, my brother, her sister, the young doctor, our neighbour, "
            "the baker, the captain, a tall painter, the little girl"
        ),
        "buys": listed("buys, finds, sells, carries, forgets, cleans, paints, hides, wants, brings"),
        "thing": listed(
            "the red book, a green bottle, the yellow lamp, an empty box, the wooden chair, a warm coat, "
            "the black umbrella, the white cup, a heavy bag, the long letter"
        ),
        "things": listed("apples, horses, candles, flowers, windows, tickets, stones, potatoes"),
        "number": listed("two, three, four, five, six, seven, eight, nine, ten, eleven, twelve"),
        "place": listed(
            "in the kitchen, at the market, behind the house, near the river, on the bridge, "
            "under the table, in the garden, at the station, beside the church, in the forest"
        ),
        "time": listed(
            "today, yesterday, this morning, on Monday, every evening, last summer, after lunch, at night"
        ),
        "state": listed("happy, tired, angry, silent, sick, proud"),
        "quality": listed("broken, beautiful, cheap, too small, almost new, very old"),
    },
)

DUTCH = Grammar(
    patterns=(
        "{time} {buys} {who} {thing} {place}.",
        "{who} {buys} {thing} {place}.",
        "{who} {buys} {number} {things} {place}.",
        "Ik zag {time} {number} {things} {place}.",
        "Waar is {thing}?",
        "{who} is {state} want {thing} is {quality}.",
        "Wij zien {who} {place} om {number} uur.",
        "{thing} ligt {place} en is {quality}.",
        "Heeft {who} {number} {things}?",
    ),
    words={
        "who": listed(
            "de boer, de oude leraar, mijn broer, haar zus, de jonge dokter, onze buurvrouw, de bakker, "
            "de kapitein, een lange schilder, het kleine meisje"
        ),
        "buys": listed("koopt, vindt, verkoopt, draagt, vergeet, poetst, verft, verstopt, zoekt, brengt"),
        "thing": listed(
            "het rode boek, een groene fles, de gele lamp, een lege doos, de houten stoel, een warme jas, "
            "de zwarte paraplu, het witte kopje, een zware tas, de lange brief"
        ),
        "things": listed("appels, paarden, kaarsen, bloemen, ramen, kaartjes, stenen, aardappels"),
        "number": listed("twee, drie, vier, vijf, zes, zeven, acht, negen, tien, elf, twaalf"),
        "place": listed(
            "in de keuken, op de markt, achter het huis, bij de rivier, op de brug, onder de tafel, "
            "in de tuin, op het station, naast de kerk, in het bos"
        ),
        "time": listed(
            "vandaag, gisteren, vanochtend, op maandag, elke avond, vorige zomer, na het eten, vannacht"
        ),
        "state": listed("blij, moe, boos, stil, ziek, trots"),
        "quality": listed("kapot, prachtig, goedkoop, te klein, bijna nieuw, heel oud"),
    },
)

DANISH = Grammar(
    patterns=(
        "{time} {buys} {who} {thing} {place}.",
        "{who} {buys} {thing} {place}.",
        "{who} {buys} {number} {things} {place}.",
        "Jeg så {number} {things} {place} {time}.",
        "Hvor er {thing}?",
        "{who} er {state} fordi {thing} er {quality}.",
        "Vi møder {who} {place} klokken {number}.",
        "{thing} ligger {place} og er {quality}.",
        "Har {who} {number} {things}?",
    ),
    words={
        "who": listed(
            "bonden, den gamle lærer, min bror, hendes søster, den unge læge, vores nabo, bageren, "
            "kaptajnen, en høj maler, den lille pige"
        ),
        "buys": listed("køber, finder, sælger, bærer, glemmer, vasker, maler, gemmer, ønsker, henter"),
        "thing": listed(
            "den røde bog, en grøn flaske, den gule lampe, en tom kasse, den brune stol, en varm frakke, "
            "den sorte paraply, den hvide kop, en tung taske, det lange brev"
        ),
        "things": listed("æbler, heste, lys, blomster, vinduer, billetter, sten, kartofler"),
        "number": listed("to, tre, fire, fem, seks, syv, otte, ni, ti, elleve, tolv"),
        "place": listed(
            "i køkkenet, på torvet, bag huset, ved floden, på broen, under bordet, i haven, på stationen, "
            "ved siden af kirken, i skoven"
        ),
        "time": listed(
            "i dag, i går, i morges, på mandag, hver aften, sidste sommer, efter frokost, om natten"
        ),
        "state": listed("glad, træt, vred, stille, syg, stolt"),
        "quality": listed("ødelagt, smuk, billig, for lille, næsten ny, meget gammel"),
    },
)

GRAMMARS = {"en": ENGLISH, "nl": DUTCH, "da": DANISH}


def split_sentences(language: str, sizes: dict[str, int], seed: int) -> dict[str, list[str]]:
    """Split name -> that many sentences; none comes twice, within a split or across.

    The smallest splits come first, so a larger training set leaves validation and test as they are.
    """
    rng = random.Random(f"{language}-{seed}")
    seen: set[str] = set()
    drawn: dict[str, list[str]] = {}
    for split in sorted(sizes, key=lambda name: (sizes[name], name)):
        drawn[split] = []
        while len(drawn[split]) < sizes[split]:
            sentence = GRAMMARS[language].sentence(rng)
            if sentence not in seen:
                seen.add(sentence)
                drawn[split].append(sentence)
    return drawn
