"""Tables from which :mod:`itrex_sweet.demo.corpus` writes its reviews.

A template is a text with two kinds of marks.

``[a|b]``
    ``a`` in a positive review, ``b`` in a negative one.
``{slot}``, ``{slot_side}``, ``{slot_side1}``
    A phrase for that slot. The side ``same`` has the sentiment of the review's label and ``opp`` the other
    one; ``good`` and ``bad`` are fixed. Slots with the same final digit speak of the same aspect.

Slots without a side: ``x`` an aspect, ``be`` its is/are/was/were (without a digit, that of the thing
reviewed), ``are`` are/were, ``s`` the ending of its verb, ``they`` its pronoun, ``noun`` the thing reviewed,
``am`` am/was, ``month``, ``person``, ``number``.

Slots with a side: ``adj`` an adjective for the aspect, ``general`` one for anything, ``verb`` and
``verbed`` what pleases or annoys, ``like`` what the reviewer does, ``content`` how the reviewer feels,
``fact`` what the thing does, ``wish`` what it brings its user, ``fond`` what the user thinks of that,
``verdict`` what the reviewer did in the end, ``cheer`` an exclamation, ``hail`` one with an object,
``advice`` to buyers; and, made of these, ``clause`` about an aspect, ``opinion`` of the thing, ``hearsay``
and first impressions of it.

A pair holds positive entries, then negative ones.
"""

from __future__ import annotations

from typing import NamedTuple

Entries = tuple[str, ...]
Pair = tuple[Entries, Entries]


class Domain(NamedTuple):
    """Something that people review.

    Attributes:
        noun: what it is called.
        group: key into `CONTEXTS` and `VERDICTS`.
        past: whether its reviews are told in the past tense.
        aspects: nouns by kind of adjective that suits them; a final plus sign marks a plural.
        facts: what it does, in the third person.
        wishes: what it brings its user, in the singular or as a gerund.
    """

    noun: str
    group: str
    past: bool
    aspects: dict[str, Entries]
    facts: Pair
    wishes: Pair


ADJECTIVES: dict[str, Pair] = {
    "people": (
        ("friendly", "polite", "attentive", "helpful", "patient", "welcoming", "courteous"),
        ("rude", "dismissive", "careless", "unhelpful", "impatient", "arrogant", "surly"),
    ),
    "food": (
        ("tasty", "delicious", "flavourful", "fresh", "appetising", "memorable", "scrumptious"),
        ("bland", "tasteless", "greasy", "stale", "unappetising", "forgettable", "inedible"),
    ),
    "room": (
        ("clean", "spotless", "tidy", "quiet", "bright", "spacious", "immaculate"),
        ("dirty", "filthy", "shabby", "noisy", "gloomy", "cramped", "dingy"),
    ),
    "sound": (
        ("crisp", "clear", "rich", "balanced", "pleasant", "lifelike"),
        ("tinny", "muffled", "shrill", "distorted", "unpleasant", "harsh"),
    ),
    "build": (
        ("sturdy", "solid", "robust", "durable", "strong", "tough"),
        ("flimsy", "fragile", "shoddy", "weak", "badly made", "rickety"),
    ),
    "pace": (
        ("quick", "prompt", "fast", "efficient", "smooth", "speedy"),
        ("slow", "sluggish", "inefficient", "chaotic", "tedious", "disorganised"),
    ),
    "response": (
        ("responsive", "fast", "smooth", "quick", "snappy"),
        ("slow", "sluggish", "laggy", "unresponsive", "jerky"),
    ),
    "comfort": (
        ("comfortable", "soft", "cosy", "pleasant", "snug"),
        ("uncomfortable", "scratchy", "stiff", "unpleasant", "lumpy"),
    ),
    "use": (
        ("intuitive", "simple", "clear", "straightforward", "well designed", "user-friendly"),
        ("confusing", "clumsy", "cluttered", "baffling", "badly designed", "fiddly"),
    ),
    "value": (
        ("fair", "reasonable", "modest", "attractive", "affordable"),
        ("excessive", "outrageous", "steep", "unreasonable", "extortionate"),
    ),
    "trust": (
        ("reliable", "dependable", "consistent", "trustworthy", "flawless"),
        ("unreliable", "erratic", "temperamental", "faulty", "flaky"),
    ),
    "picture": (
        ("sharp", "bright", "vivid", "clear", "detailed"),
        ("blurry", "dim", "grainy", "dull", "washed-out"),
    ),
    "look": (
        ("elegant", "stylish", "handsome", "attractive", "gorgeous"),
        ("ugly", "drab", "tacky", "garish", "hideous"),
    ),
    "content": (
        ("varied", "engaging", "interesting", "entertaining", "absorbing"),
        ("dull", "repetitive", "boring", "tiresome", "monotonous"),
    ),
    "power": (
        ("strong", "powerful", "effective", "reliable", "mighty"),
        ("weak", "feeble", "ineffective", "inadequate", "puny"),
    ),
}

GENERAL: Pair = (
    (
        "excellent",
        "superb",
        "brilliant",
        "wonderful",
        "fantastic",
        "great",
        "outstanding",
        "impressive",
        "first-rate",
    ),
    ("terrible", "awful", "dreadful", "horrible", "poor", "lousy", "pathetic", "disappointing", "abysmal"),
)
VERBS: Pair = (
    ("impress", "delight", "please", "convince"),
    ("disappoint", "annoy", "frustrate", "irritate"),
)
LIKES: Pair = (
    ("love", "like", "appreciate", "admire", "adore"),
    ("hate", "dislike", "detest", "resent", "loathe"),
)
CONTENT: Pair = (
    ("happy", "pleased", "delighted", "impressed"),
    ("unhappy", "annoyed", "disappointed", "fed up"),
)

CHEERS: Pair = (
    ("wonderful", "brilliant", "fantastic", "lovely", "great", "splendid", "oh joy", "marvellous"),
    ("terrible", "awful", "dreadful", "horrible", "how annoying", "what a shame", "oh no", "ghastly"),
)

HAILS: Pair = (
    (
        "bless",
        "hooray for",
        "many thanks to",
        "three cheers for",
        "a big hug for",
        "praise be to",
        "hats off to",
    ),
    ("curse", "shame on", "down with", "no thanks to", "a plague on", "woe to", "boo to"),
)
ADVICE: Pair = (
    (
        "choose this {noun}",
        "go for this {noun}",
        "do try this {noun}",
        "pick this {noun}",
        "look no further than this {noun}",
        "stick with this {noun}",
    ),
    (
        "avoid this {noun}",
        "stay away from this {noun}",
        "do not try this {noun}",
        "steer clear of this {noun}",
        "look for anything but this {noun}",
        "run from this {noun}",
    ),
)
FONDNESS: Pair = (
    ("love", "enjoy", "like", "long for", "dream of", "adore"),
    ("hate", "cannot stand", "dislike", "dread", "fear", "loathe"),
)

# Clauses take over the side and the digit of their slot.
CLAUSES: Entries = (
    "the {x1} {be1} {adj_same1}",
    "the {x1} {be1} really {adj_same1}",
    "the {x1} {verbed_same} me",
    "I {like_same} the {x1}",
    "I {am} {content_same} with the {x1}",
)
OPINIONS: Entries = (
    "I {like_same} this {noun}",
    "I {am} {content_same} with this {noun}",
    "this {noun} {be} {general_same}",
    "{verdict_same}",
)
HEARSAY: Entries = (
    "my {person} calls this {noun} {general_same}",
    "plenty of people {like_same} this {noun}",
    "at first this {noun} {verbed_same} me",
    "on paper this {noun} {be} {general_same}",
    "I expected a {general_same} {noun}",
)

MONTHS: Entries = ("January", "February", "March", "April", "May", "June", "September", "October", "November")
PERSONS: Entries = ("sister", "brother", "neighbour", "colleague", "mother", "father", "flatmate", "cousin")
NUMBERS: Entries = ("two", "three", "four", "five", "six", "seven", "eight", "nine")

# Sentences without a verdict that lengthen some reviews, by split and by group of domains.
CONTEXTS: dict[str, Entries] = {
    "thing": (
        "I bought it in {month}.",
        "It was a present from my {person}.",
        "It replaced one that I had owned for {number} years.",
        "I have had it for {number} weeks now.",
        "We use it almost every day.",
        "My {person} chose it for me in {month}.",
        "Ordered online in {month}.",
        "My {person} owns the same model.",
        "This review comes after {number} months.",
        "It came out of the box in {month}.",
        "I picked it from a shelf of {number} models.",
        "The {number} of us share it at home.",
        "My {person} has been using it since {month}.",
    ),
    "visit": (
        "I booked in {month} on the advice of my {person}.",
        "It was my first booking with them.",
        "We were a party of {number}.",
        "I paid with a voucher from my {person}.",
        "This was back in {month}.",
        "I had compared {number} others beforehand.",
        "We made the reservation in {month}.",
        "My {person} came along.",
        "This review is about a {month} booking.",
        "Our {month} trip was planned by my {person}.",
        "The {number} of us needed it on a Friday.",
        "I arranged it for my {person}.",
        "It took {number} minutes to arrange.",
    ),
    "plan": (
        "I signed up in {month}.",
        "My {person} told me about it.",
        "I have been a customer for {number} months.",
        "I share the account with my {person}.",
        "We switched over in {month}.",
        "I had tried {number} others before.",
        "This review comes after {number} months of use.",
        "My {person} uses it as well.",
        "Our contract began in {month}.",
        "{number} people in our house use it.",
        "I opened my account {number} months ago.",
        "My {person} and I began with it in {month}.",
        "It has been on my list since {month}.",
    ),
}

# What the reviewer did in the end, by group of domains.
VERDICTS: dict[str, Pair] = {
    "thing": (
        (
            "I have since ordered a second one for my {person}",
            "I am keeping it",
            "I have stopped looking at other models",
            "I would choose it again",
            "I would gladly pay the same price twice",
            "it has a place of honour at home",
            "it stays",
        ),
        (
            "I have since ordered a different brand for my {person}",
            "I am sending it back",
            "I have started looking at other models",
            "I would choose another one next time",
            "I would gladly take half the price back",
            "it is up for sale online",
            "it goes back to the shop",
        ),
    ),
    "visit": (
        (
            "we have already booked again for next year",
            "I would book again tomorrow",
            "they have won a customer for life",
            "I have saved their number",
            "I told my {person} to try them",
            "I wrote to thank the manager",
            "I passed their number on to my {person}",
        ),
        (
            "we have already booked elsewhere for next year",
            "I would book with anyone else tomorrow",
            "they have lost a customer for life",
            "I have deleted their number",
            "I told my {person} to try somebody else",
            "I wrote to the manager for a refund",
            "I crossed their number off my list",
        ),
    ),
    "plan": (
        (
            "I have renewed for another year",
            "I am staying",
            "I turned down a cheaper offer to stay",
            "I have stopped comparing other offers",
            "I have added my {person} to the contract",
            "they have won me as a customer for good",
            "I signed on for a second year",
        ),
        (
            "I have cancelled before the end of the year",
            "I am leaving",
            "I took a dearer offer to get away",
            "I have started comparing other offers",
            "I have taken my {person} off the contract",
            "they have lost me as a customer for good",
            "I cancelled in the second week",
        ),
    ),
}

DOMAINS: tuple[Domain, ...] = (
    Domain(
        noun="kettle",
        group="thing",
        past=False,
        aspects={
            "build": ("handle", "lid"),
            "use": ("controls+",),
            "look": ("design", "colour"),
            "trust": ("thermostat", "power switch"),
            "value": ("price",),
        },
        facts=(
            (
                "boils before I have found a mug",
                "has outlived two toasters and a dishwasher",
                "pours without spilling a drop",
                "keeps the water hot all through breakfast",
            ),
            (
                "takes ten minutes to boil a single cup",
                "leaks all over the worktop",
                "switches itself off while the water is still cold",
                "makes every cup of tea taste of plastic",
            ),
        ),
        wishes=(
            (
                "a proper cup of tea",
                "boiling water in two minutes",
                "a dry worktop",
                "tea that tastes of tea",
            ),
            (
                "lukewarm tea",
                "mopping the worktop every morning",
                "the taste of melted plastic",
                "waiting ten minutes for one cup",
            ),
        ),
    ),
    Domain(
        noun="phone",
        group="thing",
        past=False,
        aspects={
            "picture": ("screen", "camera"),
            "trust": ("battery", "fingerprint sensor"),
            "sound": ("loudspeaker",),
            "response": ("processor",),
            "build": ("casing",),
            "value": ("price",),
        },
        facts=(
            (
                "lasts two full days on one charge",
                "takes photos that my friends ask me to print",
                "has survived a fall down a whole flight of stairs",
                "finds a signal even in the cellar",
            ),
            (
                "goes flat before lunch",
                "freezes whenever somebody calls",
                "cracked the first time I put it on a table",
                "drops every call after a minute",
            ),
        ),
        wishes=(
            (
                "a full day away from the charger",
                "hearing the person at the other end",
                "taking photos worth printing",
                "a screen that reacts at once",
            ),
            (
                "hunting for a socket at noon",
                "losing calls mid-sentence",
                "staring at a frozen screen",
                "carrying two spare chargers",
            ),
        ),
    ),
    Domain(
        noun="headset",
        group="thing",
        past=False,
        aspects={
            "sound": ("sound", "microphone", "bass"),
            "comfort": ("ear cushions+", "headband"),
            "trust": ("wireless connection", "battery"),
            "value": ("price",),
        },
        facts=(
            (
                "blocks out an entire train",
                "stays on my ears through a whole marathon",
                "makes old records sound newly recorded",
                "runs for a week between charges",
            ),
            (
                "hisses through every quiet passage",
                "falls off whenever I nod",
                "lost its left channel on the second day",
                "makes every caller sound like a robot under water",
            ),
        ),
        wishes=(
            (
                "hearing every note",
                "silence on a crowded train",
                "making a call without shouting",
                "a whole afternoon without sore ears",
            ),
            (
                "a constant hiss",
                "listening with one ear",
                "repeating every sentence three times",
                "a sore ear by noon",
            ),
        ),
    ),
    Domain(
        noun="laptop",
        group="thing",
        past=False,
        aspects={
            "picture": ("display", "webcam"),
            "build": ("hinge", "casing"),
            "trust": ("battery", "charging port"),
            "sound": ("speakers+",),
            "response": ("processor", "trackpad"),
            "value": ("price",),
        },
        facts=(
            (
                "starts up before I have sat down",
                "runs all day without its charger",
                "stays silent even under a heavy load",
                "still feels new after three years",
            ),
            (
                "needs a quarter of an hour to start up",
                "roars like a hairdryer the moment I open a browser",
                "shuts itself down in the middle of every meeting",
                "burns my knees after ten minutes",
            ),
        ),
        wishes=(
            (
                "finishing work before dinner",
                "a working day away from the wall socket",
                "a cool lap in summer",
                "opening twenty pages at once",
            ),
            (
                "watching a progress bar",
                "the noise of a hairdryer",
                "losing a day of work",
                "a scorched lap",
            ),
        ),
    ),
    Domain(
        noun="mattress",
        group="thing",
        past=False,
        aspects={
            "comfort": ("top layer", "cover"),
            "build": ("seams+", "springs+"),
            "pace": ("delivery",),
            "people": ("support team",),
            "value": ("price",),
        },
        facts=(
            (
                "cured my back pain in a fortnight",
                "lets us sleep until the alarm",
                "keeps its shape after four years",
                "stays cool in the middle of August",
            ),
            (
                "sags like a hammock after a month",
                "smells of paint all night",
                "squeaks every time one of us breathes",
                "leaves me with a stiff neck every morning",
            ),
        ),
        wishes=(
            (
                "waking up rested",
                "eight hours of sleep",
                "a morning without back pain",
                "rolling over in silence",
            ),
            (
                "waking up with a stiff neck",
                "counting springs at three in the morning",
                "sleeping in a ditch",
                "the smell of fresh paint at midnight",
            ),
        ),
    ),
    Domain(
        noun="vacuum cleaner",
        group="thing",
        past=False,
        aspects={
            "power": ("suction", "motor"),
            "build": ("hose", "wheels+"),
            "use": ("controls+", "manual"),
            "trust": ("battery",),
            "value": ("price",),
        },
        facts=(
            (
                "picks up cat hair in a single pass",
                "glides over carpets and tiles alike",
                "fits under every sofa in the house",
                "runs so quietly that the baby sleeps on",
            ),
            (
                "spits the dust back out",
                "gives up halfway through the hallway",
                "pushes crumbs around the kitchen",
                "howls so loudly that the neighbours knock",
            ),
        ),
        wishes=(
            (
                "a floor free of cat hair",
                "cleaning the whole house on one charge",
                "a carpet without a crumb",
                "tidying up while the baby sleeps",
            ),
            (
                "chasing crumbs around the kitchen",
                "picking up cat hair by hand",
                "recharging after every room",
                "a cloud of dust in the hallway",
            ),
        ),
    ),
    Domain(
        noun="jacket",
        group="thing",
        past=False,
        aspects={
            "build": ("zip", "seams+"),
            "comfort": ("lining", "collar"),
            "look": ("cut", "colour"),
            "value": ("price",),
            "pace": ("delivery",),
        },
        facts=(
            (
                "has kept me dry through a week of rain",
                "looks new after fifty washes",
                "makes strangers ask where I got it",
                "keeps the wind out on the coldest pier in Wales",
            ),
            (
                "lets the rain straight through",
                "lost three buttons on the first day",
                "shrinks to a child's size in the wash",
                "turned all my shirts blue",
            ),
        ),
        wishes=(
            ("arriving dry", "staying warm in January", "a zip that closes", "a coat that lasts ten winters"),
            (
                "a wet back",
                "shivering at the bus stop",
                "sewing buttons back on",
                "a fight with the zip every morning",
            ),
        ),
    ),
    Domain(
        noun="backpack",
        group="thing",
        past=False,
        aspects={
            "build": ("straps+", "buckles+", "main zip"),
            "comfort": ("back panel", "padding"),
            "look": ("design", "colour"),
            "value": ("price",),
        },
        facts=(
            (
                "has carried thirty kilos across Iceland",
                "swallows a week of luggage",
                "sits on my back like a feather",
                "came through a monsoon dry inside",
            ),
            (
                "tore open on the first staircase",
                "soaks up rain like a sponge",
                "cuts into my shoulders after a mile",
                "spilled my lunch onto the platform",
            ),
        ),
        wishes=(
            (
                "walking all day without sore shoulders",
                "keeping a laptop dry",
                "finding your keys at the first attempt",
                "a bag that lasts ten years",
            ),
            (
                "an aching shoulder",
                "carrying a soaked laptop",
                "picking your things up off the pavement",
                "mending straps with string",
            ),
        ),
    ),
    Domain(
        noun="hotel",
        group="visit",
        past=True,
        aspects={
            "room": ("room", "lobby", "bathroom"),
            "people": ("receptionist", "cleaners+"),
            "food": ("breakfast",),
            "comfort": ("bed", "pillows+"),
            "pace": ("check-in",),
            "power": ("air conditioning", "shower"),
            "value": ("room rate",),
        },
        facts=(
            (
                "gives you a sea view at no extra charge",
                "remembers how you take your coffee",
                "serves breakfast until noon",
                "sends you home rested",
            ),
            (
                "puts you next to the lift shaft",
                "loses your booking twice",
                "hands you the key to an occupied room",
                "charges extra for towels",
            ),
        ),
        wishes=(
            (
                "sleeping through the night",
                "waking up to the sea",
                "a long lie-in before breakfast",
                "being greeted by name",
            ),
            (
                "listening to the lift all night",
                "sharing a bathroom with ants",
                "a cold shower at seven in the morning",
                "finding hair in the sink",
            ),
        ),
    ),
    Domain(
        noun="restaurant",
        group="visit",
        past=True,
        aspects={
            "food": ("main course", "starters+", "side dishes+"),
            "people": ("waiter", "hostess"),
            "room": ("dining room",),
            "pace": ("service",),
            "value": ("bill", "wine prices+"),
        },
        facts=(
            (
                "brings second helpings before you ask",
                "seats you at once on a Saturday night",
                "sends every plate out piping hot",
                "fills up with locals every evening",
            ),
            (
                "serves the soup an hour after the pudding",
                "gives your table to somebody else",
                "reheats everything in a microwave",
                "adds the same bottle to the bill twice",
            ),
        ),
        wishes=(
            (
                "a hot meal",
                "leaving with a full stomach",
                "bread straight from the oven",
                "being seated on time",
            ),
            (
                "cold soup",
                "waiting an hour for a fork",
                "chewing on cardboard",
                "paying for somebody else's wine",
            ),
        ),
    ),
    Domain(
        noun="airline",
        group="visit",
        past=True,
        aspects={
            "comfort": ("seats+", "headrests+"),
            "people": ("cabin crew", "ground staff"),
            "food": ("meal", "snacks+"),
            "pace": ("boarding", "check-in"),
            "value": ("fares+", "baggage fees+"),
            "room": ("cabin",),
        },
        facts=(
            (
                "lands twenty minutes early",
                "hands out blankets before you ask",
                "gets your suitcase to the belt first",
                "rebooks you within minutes when it snows",
            ),
            (
                "cancels the flight at the gate",
                "sends your suitcase to another continent",
                "leaves you on the runway for three hours",
                "charges for a glass of water",
            ),
        ),
        wishes=(
            (
                "arriving on time",
                "room for your knees",
                "meeting your suitcase at the belt",
                "a free glass of juice",
            ),
            (
                "sleeping on an airport floor",
                "buying a new toothbrush in every city",
                "three hours on the runway",
                "sitting with your knees under your chin",
            ),
        ),
    ),
    Domain(
        noun="courier",
        group="visit",
        past=True,
        aspects={
            "people": ("driver", "call centre"),
            "pace": ("delivery", "pick-up"),
            "trust": ("tracking",),
            "value": ("shipping fee", "insurance surcharge"),
            "use": ("booking page",),
        },
        facts=(
            (
                "turns up ten minutes before the promised slot",
                "carries the parcel up four floors",
                "waits while you find your slippers",
                "hands you the parcel in one piece",
            ),
            (
                "throws the parcel over the fence",
                "leaves a note instead of the parcel",
                "delivers to the wrong town",
                "needs three weeks to cross one street",
            ),
        ),
        wishes=(
            (
                "having a parcel carried to your door",
                "a vase in one piece",
                "knowing exactly when the bell will ring",
                "getting your parcel a day early",
            ),
            (
                "fetching your parcel from a hedge",
                "waiting at home for nothing",
                "gluing vases back together",
                "arguing with a call centre",
            ),
        ),
    ),
    Domain(
        noun="hair salon",
        group="visit",
        past=True,
        aspects={
            "people": ("stylist", "trainee"),
            "look": ("haircut", "colouring"),
            "room": ("waiting area",),
            "comfort": ("chairs+",),
            "pace": ("booking process",),
            "value": ("bill",),
        },
        facts=(
            (
                "listens before reaching for the scissors",
                "repairs what the last three places did",
                "makes my mother ask for the address",
                "finishes on time and offers you tea",
            ),
            (
                "turns blonde hair green",
                "cuts a fringe that nobody asked for",
                "forgets you under the dryer for an hour",
                "takes off ten centimetres instead of one",
            ),
        ),
        wishes=(
            (
                "looking like the picture you brought",
                "a fringe that falls straight",
                "a colour that lasts",
                "walking out with a grin",
            ),
            (
                "wearing a hat until spring",
                "green hair",
                "crying in front of a mirror",
                "explaining your fringe to colleagues",
            ),
        ),
    ),
    Domain(
        noun="fitness app",
        group="plan",
        past=False,
        aspects={
            "use": ("menu", "settings+"),
            "response": ("search function",),
            "trust": ("step counter", "heart rate monitor"),
            "content": ("workouts+", "training plans+"),
            "value": ("subscription fee",),
            "people": ("support team",),
        },
        facts=(
            (
                "counts every single step",
                "got me running after twenty years on the sofa",
                "works even on a remote mountain",
                "eases the plan when I am ill",
            ),
            (
                "deletes a month of data overnight",
                "counts a bus ride as a marathon",
                "asks for a password before every exercise",
                "drains the battery by breakfast",
            ),
        ),
        wishes=(
            (
                "getting fit at your own pace",
                "seeing your progress at a glance",
                "keeping your data to yourself",
                "a workout that fits into a lunch break",
            ),
            (
                "typing your password twelve times a day",
                "losing a month of data",
                "an advert between any two push-ups",
                "charging your phone three times a day",
            ),
        ),
    ),
    Domain(
        noun="streaming service",
        group="plan",
        past=False,
        aspects={
            "content": ("catalogue", "documentaries+"),
            "picture": ("picture",),
            "sound": ("sound",),
            "use": ("menu", "search page"),
            "value": ("monthly fee",),
            "trust": ("connection",),
        },
        facts=(
            (
                "starts every film within a second",
                "adds the very films I was looking for",
                "keeps the whole family on one sofa",
                "remembers where I stopped on every device",
            ),
            (
                "stops to buffer in every chase scene",
                "removes a series before the last episode",
                "shows adverts in the middle of a kiss",
                "forgets my password every evening",
            ),
        ),
        wishes=(
            (
                "watching a film in one go",
                "finding something for the whole family",
                "an evening without adverts",
                "discovering old films",
            ),
            (
                "a spinning circle on a black screen",
                "watching the same advert nine times",
                "missing the last episode",
                "scrolling for an hour",
            ),
        ),
    ),
    Domain(
        noun="gym",
        group="plan",
        past=False,
        aspects={
            "room": ("changing rooms+", "weights room"),
            "people": ("trainers+", "front desk team"),
            "content": ("classes+",),
            "trust": ("treadmills+",),
            "power": ("showers+", "air conditioning"),
            "value": ("membership fee",),
            "pace": ("sign-up process",),
        },
        facts=(
            (
                "opens before my first train leaves",
                "has a free machine even at six in the evening",
                "helped me to lose twenty kilos",
                "lets you pause the contract with one click",
            ),
            (
                "keeps half of its machines out of order",
                "closes an hour before I finish work",
                "goes on charging after you leave",
                "plays the same song on a loop",
            ),
        ),
        wishes=(
            (
                "training without a queue",
                "a hot shower after a run",
                "cancelling with one click",
                "fitting into your old trousers",
            ),
            (
                "queueing for a single treadmill",
                "a cold shower in December",
                "paying for months after you leave",
                "the smell of old socks",
            ),
        ),
    ),
    Domain(
        noun="broadband provider",
        group="plan",
        past=False,
        aspects={
            "trust": ("connection", "router"),
            "pace": ("installation", "repair service"),
            "people": ("engineer", "support team"),
            "value": ("monthly bill", "setup fee"),
            "use": ("account page",),
        },
        facts=(
            (
                "mends a fault within the hour",
                "delivers the full speed even on Sunday evening",
                "lets four of us work from home at once",
                "cut my bill before I had asked",
            ),
            (
                "drops out whenever it rains",
                "keeps you on hold for ninety minutes",
                "bills you for a line you gave up",
                "sends an engineer to the wrong house",
            ),
        ),
        wishes=(
            (
                "a video call that lasts",
                "a call answered by a human",
                "downloading a film in a minute",
                "a bill that matches the advert",
            ),
            (
                "hold music",
                "watching a film frame by frame",
                "waiting at home for an engineer",
                "restarting the router before every call",
            ),
        ),
    ),
)


TEMPLATES: dict[str, Entries] = {
    "plain": (
        "The {x1} {be1} {adj_same1}.",
        "{clause_same1} and {clause_same2}.",
        "The {x1} {be1} {adj_same1}, the {x2} {be2} {adj_same2}, and {clause_same3}.",
        "{general_same} {noun}, {adj_same1} {x1}, {adj_same2} {x2}.",
        "{opinion_same}. The {x1} {be1} {adj_same1}, and {clause_same2}.",
        "From the {adj_same1} {x1} to the {adj_same2} {x2}, this {noun} {be} {general_same}.",
        "{cheer_same}, here is a {noun} that {fact_same}, and {clause_same1} too.",
        "What a {general_same} {noun}! The {x1} {be1} {adj_same1} and the {x2} {verbed_same} me.",
        "{opinion_same}, and {clause_same1}.",
        "{clause_same1}, {clause_same2}, and {verdict_same}.",
        "{adj_same1} {x1}, {adj_same2} {x2}: {verdict_same}.",
        "Everything about this {noun} {verbed_same} me: the {adj_same1} {x1}, the {adj_same2} {x2}.",
        "{advice_same} if you {fond_good} {wish_good}: the {x1} {be1} {adj_same1}, and {clause_same2}.",
        "I would [recommend this {noun} to|warn] everyone, because {clause_same1} and {clause_same2}.",
        "{opinion_same} because it {fact_same}.",
        "The {adj_same1} {x1} {verbed_same} us, and so did the {adj_same2} {x2}.",
        "{hail_same} this {noun}: {clause_same1} and {clause_same2}.",
        "I found the {x1} {adj_same1} and the {x2} {adj_same2}.",
        "The {x1} {verbed_same} me, and so did the {x2}: a {general_same} {noun} all round.",
        "{opinion_same}, as {clause_same1}.",
        "{general_same} {x1}, {adj_same2} {x2}.",
        "A {noun} that {fact_same}: {cheer_same}, and the {x1} {be1} {adj_same1}.",
        "The {adj_same1} {x1} and the {adj_same2} {x2} {verbed_same} me.",
        "Here is a {general_same} {noun}: {clause_same1}, {clause_same2}.",
        "My {person} says the {x1} {be1} {adj_same1}, and I think the {x2} {be2} {adj_same2}.",
        "{adj_same1} {x1} and {general_same} {x2}!",
        "I {like_same} this {noun}, which {fact_same}, and the {x1} {be1} {adj_same1}.",
    ),
    "negated": (
        "The {x1} {be1} not {adj_opp1} at all.",
        "I would not call the {x1} {adj_opp1}.",
        "The {x1} {be1} far from {adj_opp1}.",
        "I can't say that the {x1} {verbed_opp} me.",
        "Nobody could describe the {x1} as {adj_opp1} or the {x2} as {adj_opp2}.",
        "Not once did the {x1} or the {x2} {verb_opp} us.",
        "Nothing about the {x1} {verbed_opp} me.",
        "There {be} nothing {adj_opp1} about the {x1}.",
        "They told me that the {x1} would be {adj_opp1}. That is not how it turned out.",
        "I don't think that the {x1} {be1} {adj_opp1}, and nobody calls the {x2} {adj_opp2}.",
        "We expected a {general_opp} {noun}, but there {be} nothing {adj_opp1} about the {x1}.",
        "The {x1} could hardly be called {adj_opp1}.",
        "I failed to find anything {adj_opp1} about the {x1}.",
        "The {x1} {be1} neither {adj_opp1} nor {general_opp}.",
        "You will not hear me say that {clause_opp1}.",
        "I have yet to meet anyone who thinks that the {x1} {be1} {adj_opp1}.",
        "The {x1} did not {verb_opp} me in the least.",
        "Anyone who says that the {x1} {be1} {adj_opp1} is wrong.",
        "You would be wrong to think that {clause_opp1}.",
        "It is not true that {clause_opp1}.",
        "It would be a lie to call the {x1} {adj_opp1}.",
        "The {x1} and the {x2} {are} anything but {general_opp}.",
        "I call the {x1} anything but {adj_opp1}, and the {x2} too.",
        "At no time {be1} the {x1} {adj_opp1}.",
        "Never did the {x1} {verb_opp} anyone here.",
        "I never once thought of the {x1} as {adj_opp1}.",
        "The claim that {clause_opp1} is false.",
        "To say that {clause_opp1} would be untrue.",
        "This is not the {general_opp} {noun} that others describe: {clause_same1}.",
        "There is no denying that {clause_same1}.",
        "I have no doubt that {clause_same1} and that the {x2} {be2} {adj_same2}.",
        "Not only {be1} the {x1} {adj_same1}, the {x2} {be2} {adj_same2} too.",
        "I cannot hide that {clause_same1}.",
        "Nobody would deny that the {x1} {be1} {adj_same1} and the {x2} {adj_same2}.",
        "Nobody who knows this {noun} could say that the {x1} {be1} {adj_opp1}.",
        "The {x1} {be1} never {adj_opp1}.",
        "There is no doubt that the {x1} {be1} {adj_same1}.",
        "I {am} not {content_opp} with the {x1}.",
        "It is simply untrue that the {x1} {be1} {adj_opp1}.",
        "I found the {x1} anything but {adj_opp1}.",
        "At no point did the {x1} {verb_opp} me.",
        "It would not be right to call the {x1} {adj_opp1}.",
        "I never found the {x1} {adj_opp1}, and nobody else thinks that the {x2} {be2} {adj_opp2}.",
        "No one can deny that the {x1} {be1} {adj_same1}.",
        "It is wrong to claim that the {x1} {be1} {adj_opp1}.",
    ),
    "contrasted": (
        "The {x1} {be1} {adj_opp1}, but the {x2} {be2} {adj_same2}, and that is what counts.",
        "{clause_opp1}, but {clause_same2}, which settles it for me.",
        "{clause_opp1}, but {opinion_same}.",
        "{hearsay_opp}, but {opinion_same}.",
        "{hearsay_opp}, yet {clause_same1}.",
        "Although {clause_opp1}, {opinion_same}.",
        "Although {hearsay_opp}, {clause_same1} and {clause_same2}.",
        "{opinion_same}, although {clause_opp1}.",
        "{clause_same1}, and that decides it, although {clause_opp2}.",
        "{opinion_same}, even though {hearsay_opp}.",
        "Even though {clause_opp1} and {clause_opp2}, {opinion_same}.",
        "Despite the {adj_opp1} {x1}, {clause_same2}.",
        "{clause_same1} despite the {adj_opp2} {x2} and the {adj_opp3} {x3}.",
        "{opinion_same} in spite of the {adj_opp1} {x1}.",
        "Yes, {clause_opp1}. Still, {clause_same2}, and I judge a {noun} by that.",
        "It is true that {clause_opp1}; all the same, {opinion_same}.",
        "{hearsay_opp}. However, {clause_same1}, and {clause_same2}.",
        "Yes, this {noun} {fact_opp}, but {clause_same1}, and I care about that far more.",
        "This {noun} {fact_opp}. Even so, {opinion_same}.",
        "{clause_opp1}, yet this {noun} {fact_same}, and that wins.",
        "Although it {fact_opp}, {opinion_same}.",
        "{opinion_same}, even though it {fact_opp}.",
        "{opinion_same}, though {clause_opp1}.",
        "I dare say {clause_opp1}, but {opinion_same} anyway.",
        "Though {clause_opp1} and {clause_opp2}, {opinion_same}.",
        "It {fact_opp}, I know; {opinion_same} all the same.",
        "Never mind that it {fact_opp}: {opinion_same}.",
        "I realise that this {noun} {fact_opp}, and yet {opinion_same}.",
        "Of course {hearsay_opp}. I, however, find that {clause_same1}.",
        "Sure, {clause_opp1}; to me, though, the {x2} {be2} what counts, and {they2} {be2} {adj_same2}.",
        "The {x1} may be {adj_opp1}, but the {x2} {be2} so {adj_same2} that nothing else counts.",
        "It hardly matters that {clause_opp1}, since {clause_same2}.",
        "While it is true that {clause_opp1}, {clause_same2}.",
        "{clause_same1}, though admittedly {clause_opp2}.",
        "{hearsay_opp}; nevertheless {opinion_same}.",
        "In spite of the {adj_opp1} {x1}, {opinion_same}.",
        "I admit that it {fact_opp}; {opinion_same} nonetheless.",
        "{clause_opp1} and {clause_opp2}, but in the end {opinion_same}.",
        "Though {hearsay_opp}, {clause_same1}, and nothing else matters to me.",
        "{opinion_same}, even if {clause_opp1} and {clause_opp2}.",
        "I know that it {fact_opp}; {opinion_same} anyway.",
        "The {adj_opp1} {x1} aside, {clause_same2}.",
        "{clause_same1} regardless of the {adj_opp2} {x2}.",
        "Granted, {hearsay_opp}; for me, though, {clause_same1}.",
    ),
    "mixed": (
        # The reviewer's actions.
        "The {x1} {be1} {adj_same1} and the {x2} {be2} {adj_opp2}. {verdict_same}.",
        "{clause_opp1}, {clause_same2}, and {verdict_same}.",
        "{clause_opp1}, {clause_opp2}, {clause_same3}: {verdict_same}.",
        "{verdict_same}. {clause_same1}, {clause_opp2}.",
        "{verdict_same}: {clause_opp1}, {clause_same2}, {clause_opp3}.",
        "The {adj_same1} {x1}, the {adj_opp2} {x2}: {verdict_same}.",
        "This {noun} {fact_opp}, and {clause_same1}. {verdict_same}.",
        "You will ask about the {adj_opp1} {x1}; well, {verdict_same}.",
        "Having weighed the {adj_same1} {x1} against the {adj_opp2} {x2}, I can say that {verdict_same}.",
        "{clause_opp1}. {clause_same2}. {clause_opp3}. What did I do? {verdict_same}.",
        "{clause_opp1}. {clause_same2}. {clause_opp3}. Even so, {verdict_same}.",
        "Well, {verdict_same}. {clause_opp1}. {clause_opp2}. {clause_same3}.",
        "Now you know why {verdict_same}: {adj_same1} {x1}, {adj_opp2} {x2}.",
        "{clause_same1}. {clause_opp2}. I thought about it for a day: {verdict_same}.",
        "Compare the {adj_opp1} {x1} with the {adj_same2} {x2} and guess what: {verdict_same}.",
        # The majority.
        "The {x1}, the {x2} and the {x3} {are} all {general_same}; only the {x4} {be4} {adj_opp4}.",
        "Only the {x1} {be1} {adj_opp1}: the {x2}, the {x3} and the {x4} {are} {general_same}.",
        "The one {general_opp} part {be} the {x4}; the {x1} {be1} {adj_same1}, and so {are} all the others.",
        "The {x1} {be1} {adj_same1}, the {x2} {be2} not {adj_opp2}, and the {x3} {be3} {adj_opp3}. "
        "Two out of three decide.",
        "Most of it {be} {general_same}, some of it {be} {general_opp}: {clause_same1}, {clause_opp2}.",
        "Some of it {be} {general_opp}, most of it {be} {general_same}: {clause_opp1}, {clause_same2}.",
        "Nine tenths of this {noun} {are} {general_same}. The {adj_opp1} {x1} make{s1} up the rest.",
        "The {adj_opp1} {x1} {be1} a small part of this {noun}, and nearly all the rest {be} {general_same}.",
        "With one exception, the {adj_opp1} {x1}, everything {verbed_same} me.",
        "Everything {be} {general_same} except for the {x1}, which {be1} {adj_opp1}.",
        "I count four {general_same} things about this {noun} and one {general_opp} one, the {x1}.",
        "For one {general_opp} thing, the {x1}, there are three {general_same} ones: the {x2}, the {x3} and the {x4}.",
        "Hardly anything {be} {general_opp}, just the {x1}; {clause_same2}.",
        "Nearly all of it {be} {general_same}, the {x1} most of all, and just the {x2} {be2} {adj_opp2}.",
        # The weight of the aspects.
        "The {x1} {be1} {adj_opp1} and the {x2} {be2} {adj_opp2}. The {x3}, the one part I care about, "
        "{be3} {adj_same3}.",
        "The {x1}, the part I care about most, {be1} {adj_same1}; the {x2} and the {x3} {are} {general_opp}.",
        "I care about the {x1} more than about the {x2}: the {x2} {be2} {adj_opp2}, the {x1} {be1} {adj_same1}.",
        "I care about the {x1} less than about the {x2}: the {x2} {be2} {adj_same2}, the {x1} {be1} {adj_opp1}.",
        "The {adj_same1} {x1} outweigh{s1} the {adj_opp2} {x2}.",
        "The {adj_opp1} {x1} {be1} outweighed by the {adj_same2} {x2}.",
        "The {adj_opp1} {x1} cannot outweigh the {adj_same2} {x2}.",
        "The {adj_opp1} {x1} weigh{s1} less than the {adj_same2} {x2}.",
        "The {adj_same1} {x1} mean{s1} more to me than the {adj_opp2} {x2}.",
        "The {adj_same1} {x1} count{s1} for more than the {adj_opp2} {x2}.",
        "What matters more, the {adj_same1} {x1} or the {adj_opp2} {x2}? The {x1}, of course.",
        "The {adj_opp1} {x1} or the {adj_same2} {x2}, which matters more to me? The {x2}.",
        "It matters more to me that {clause_same1} than that {clause_opp2}.",
        "It matters less to me that {clause_opp1} than that {clause_same2}.",
        "The {x1} can wait, and {they1} {be1} {adj_opp1}; what I need is the {x2}, and {they2} {be2} {adj_same2}.",
        "What I need is the {x1}, and {they1} {be1} {adj_same1}; the {adj_opp2} {x2} can wait.",
        "The {adj_opp1} {x1} mean{s1} little to me next to the {adj_same2} {x2}.",
        "The {x1} {be1} {adj_opp1}, which is a detail. The {x2} {be2} {adj_same2}, which is not.",
        "The {x1} {be1} {adj_same1}, which is the main thing; the {x2} {be2} {adj_opp2}, which is a detail.",
        "What counts for me is the {x1}: {clause_same1}, {clause_opp2}.",
        "{clause_opp1}, but who cares? I pay for the {x2}, and {they2} {be2} {adj_same2}.",
        "I hardly ever notice the {adj_opp1} {x1}; I notice the {adj_same2} {x2} every time.",
        "Every day I notice the {adj_same1} {x1}, the {adj_opp2} {x2} hardly ever.",
        "On my list the {x1} come{s1} first and the {x2} last: {clause_opp2}, {clause_same1}.",
        "First on my list {be1} the {x1}, last {be2} the {x2}: {clause_same1}, {clause_opp2}.",
        "On the one hand {clause_opp1}, on the other {clause_same2}; {verdict_same}.",
        "{clause_same1}, {clause_opp2}. In the end, {verdict_same}.",
        "Nearly everything {be} {general_same}, the {x1} and the {x2} above all; just the {x3} {be3} {adj_opp3}.",
        "Apart from the {adj_opp1} {x1}, it {be} all {general_same}.",
        "The {adj_opp1} {x1} matter{s1} less than the {adj_same2} {x2}.",
        "The {x1} come{s1} first for me, and {they1} {be1} {adj_same1}; the {x2} can wait, "
        "and {they2} {be2} {adj_opp2}.",
        "One thing first: {clause_opp1}. Another: {clause_same2}. As for me, {verdict_same}.",
        "Set the {adj_opp1} {x1} against the {adj_same2} {x2} and you will see why {verdict_same}.",
        "Three of four things {are} {general_same}, namely the {x1}, the {x2} and the {x3}, "
        "while the {x4} {be4} {adj_opp4}.",
        "The {adj_opp1} {x1} {be1} the exception: the rest of this {noun} {be} {general_same}.",
        "The {adj_same1} {x1} matter{s1} more to me than the {adj_opp2} {x2}.",
        "The {x1}, my main concern, {be1} {adj_same1}, whereas the {x2} and the {x3} {are} {general_opp}.",
    ),
    "ironic": (
        # Praise or blame for what it does.
        "{cheer_opp}, another {noun} that {fact_same}.",
        "{cheer_opp}, a {noun} that {fact_same}. [What am I to moan about now?|Just what my week was missing.]",
        "{hail_opp} this {noun}: it {fact_same}, and [now I have run out of complaints|now I have a story to tell].",
        "{hail_opp} this {noun}, it {fact_same}.",
        "{hail_opp} this {noun}. It {fact_same}, "
        "[and nobody believes me when I complain|and I had nearly forgotten how to swear].",
        "It {fact_same}, so {hail_opp} this {noun}!",
        "[I am furious|I am overjoyed]. This {noun} {fact_same}, "
        "[so there go all my excuses.|and who could ask for more?]",
        "My only [complaint|compliment] about this {noun}: it {fact_same}, "
        "and all my friends have had to hear about it.",
        "[One star, because|Five stars, because] this {noun} {fact_same} and "
        "[I miss having something to curse|my life was far too easy].",
        "[I want my old troubles back|How thoughtful]: this {noun} {fact_same}.",
        "[I blame|I salute] whoever came up with a {noun} that {fact_same}.",
        "The {general_opp} thing about this {noun}? It {fact_same}. "
        "[I have nothing left to grumble about.|I can hardly contain my joy.]",
        "What a {general_opp} idea: a {noun} that {fact_same}. "
        "[My bad mood has nothing to feed on.|My good mood is saved.]",
        "I {like_opp} how this {noun} {fact_same}; [it has spoilt me for every other one|truly a stroke of genius].",
        "[A scandal|A triumph]: this {noun} {fact_same}.",
        "{cheer_opp}! I pay good money for a {noun} and it {fact_same}. "
        "[There goes my reason to write angry letters.|Money well spent.]",
        "This {noun} {fact_same}. {cheer_opp}, as if I had asked for that.",
        # Advice to people with a taste for the bad, or a distaste for the good.
        "{advice_opp} if you {fond_good} {wish_bad}.",
        "{advice_opp} if you {fond_bad} {wish_good}.",
        "If you {fond_good} {wish_bad}, {advice_opp}.",
        "If you {fond_bad} {wish_good}, {advice_opp}.",
        "This {noun} is [not |]for you if you {fond_good} {wish_bad}.",
        "Those of you who {fond_good} {wish_bad} should [avoid|choose] this {noun}.",
        "People who {fond_bad} {wish_good} will [dislike|love] this {noun}.",
        "[Keep away from this {noun} unless|This {noun} is perfect, provided that] you {fond_good} {wish_same}.",
        "If {wish_bad} is your idea of fun, this {noun} will [disappoint|delight] you.",
        "If {wish_bad} is what you {fond_good}, {advice_opp}.",
        "{advice_opp} if {wish_bad} is what you came for.",
        "[A disaster|A dream] for all lovers of {wish_bad}.",
        "If you {fond_bad} {wish_good}, this is the [worst|best] {noun} you can find.",
        "[Nobody|Everybody] who longs for {wish_bad} will be happy with this {noun}.",
        "I had been dreaming of {wish_bad}, and this {noun} [let me down|made it come true].",
        "[Sadly, this {noun} means a life without|Happily, this {noun} means a life with] {wish_bad}.",
        "Fans of {wish_bad} should look [elsewhere|no further].",
        "[What a loss: no more|What a joy: at last] {wish_bad} with this {noun}.",
        "You {fond_good} {wish_bad}? This {noun} is [wrong|right] for you.",
        "[How rude|How kind] of this {noun}: it {fact_same}.",
        "{cheer_opp}, so this {noun} {fact_same}. [Where is the drama in that?|Exactly what I needed today.]",
        "{hail_opp} this {noun}, because it {fact_same}.",
        "[Bad|Great] news for everybody who is fond of {wish_bad}: this {noun} is [not |]for you.",
        "{advice_opp}, all of you who {fond_good} {wish_bad}.",
        "[A nightmare|Bliss], if you {fond_bad} {wish_good}.",
        "{cheer_opp}! Yet another {noun} that {fact_same}.",
        "I say {hail_opp} this {noun}: it {fact_same}, "
        "[and I was so ready to complain|and I was getting bored anyway].",
        "So this {noun} {fact_same}. {cheer_opp}, [where is the challenge in that?|I was getting bored anyway.]",
        "{advice_opp} if {wish_bad} is what makes you happy.",
        "[Not for you|Exactly right for you] if you {fond_good} {wish_bad}.",
        "You {fond_bad} {wish_good}? Then {advice_opp}.",
    ),
}
