"""The people, scenes and sentences that the embedded word problems are told with."""

NAMES = [("Mia", "she"), ("Ben", "he"), ("Ana", "she"), ("Tom", "he"), ("Lena", "she"), ("Omar", "he"),
         ("Ruth", "she"), ("Ivan", "he"), ("Wei", "she"), ("Noah", "he"), ("Sara", "she"), ("Luis", "he")]
OBJECT_FORM = {"she": "her", "he": "him"}
OWNER_FORM = {"she": "her", "he": "his"}

# Sentences of a scene, by operation. {A} and {B} are people, {x} the things counted, {n} the opening
# number, {j} how many groups of it, {k} the operand. `start` or `groups` opens, `ask` closes; `need`,
# `together` and `compare` are closing operations with a question of their own.
SCENES = {
    "collection": {
        "unit": ["stickers", "marbles", "shells", "cards", "stamps", "coins", "buttons", "beads"],
        "start": ["{A} has {n} {x}.", "{A} starts with {n} {x}.", "There are {n} {x} in {A}'s drawer."],
        "groups": ["{A} has {j} boxes with {n} {x} in each box.", "{A} buys {j} packs of {n} {x}."],
        "plus": ["{B} gives {her} {k} more.", "{She} finds {k} more {x}.", "For {hers} birthday {she} gets {k} more {x}."],
        "minus": ["{She} gives {k} {x} to {B}.", "{She} loses {k} of them.", "{She} trades {k} {x} for a book."],
        "times": ["{She} collects until {she} has {k} times as many.", "Then the collection grows to {k} times its size."],
        "share": ["{She} sorts all {hers} {x} into {k} equal piles and keeps one pile.", "{She} divides all {hers} {x} among {k} albums and keeps one album."],
        "half": ["{She} gives half of all {hers} {x} to {B}.", "Then {she} loses half of all {hers} {x}."],
        "need": ["{She} wants to have {k} {x}. How many more {x} does {she} need?"],
        "together": ["{B} has {k} more {x} than {A} has now. How many {x} do they have together?"],
        "compare": ["{B} has {k} times as many {x} as {A} has now. How many {x} do they have together?"],
        "ask": ["How many {x} does {A} have now?", "How many {x} does {A} have in the end?"],
    },
    "bakery": {
        "unit": ["rolls", "muffins", "cookies", "buns", "pies", "cakes"],
        "start": ["A bakery has {n} {x}.", "{A} bakes {n} {x} in the morning."],
        "groups": ["{A} bakes {j} trays of {n} {x}.", "A bakery gets {j} boxes with {n} {x} in each box."],
        "plus": ["Then {k} more come out of the oven.", "{B} brings {k} more {x}.", "After lunch {k} more {x} are baked."],
        "minus": ["Before noon {k} {x} are sold.", "A neighbour buys {k} of them.", "A school takes {k} {x}."],
        "times": ["The oven runs until there are {k} times as many."],
        "share": ["All the {x} go into {k} equal bags, and all bags but one are sold.", "All the {x} are packed in {k} equal boxes, and only one box stays."],
        "half": ["Half of all the {x} are sold.", "A neighbour buys half of all the {x}."],
        "need": ["A party needs {k} {x}. How many more {x} must be baked?"],
        "ask": ["How many {x} are left?", "How many {x} are there now?"],
    },
    "bus": {
        "unit": ["passengers", "people"],
        "start": ["A bus leaves with {n} {x}.", "There are {n} {x} on a train."],
        "groups": ["A train has {j} cars with {n} {x} in each car."],
        "plus": ["At the market {k} more get on.", "At the next stop {k} {x} get on.", "A group of {k} {x} gets on."],
        "minus": ["At the museum {k} {x} get off.", "At the next stop {k} of them get off.", "Then {k} {x} leave."],
        "half": ["At the park half of all the {x} get off.", "Half of all the {x} leave at the station."],
        "need": ["There are {k} seats on board. How many seats are empty?"],
        "ask": ["How many {x} are on board now?", "How many {x} are left on board?"],
    },
    "money": {
        "unit": ["dollars"],
        "start": ["{A} has ${n}.", "{A} saved ${n}."],
        "groups": ["{A} works {j} hours for ${n} an hour.", "{A} sells {j} cakes for ${n} each."],
        "plus": ["{She} earns ${k} more.", "{B} gives {her} ${k}.", "{She} finds ${k}."],
        "minus": ["{She} spends ${k} on a book.", "{She} pays ${k} for lunch.", "{She} gives ${k} to {B}."],
        "times": ["{She} saves until {she} has {k} times as much.", "Then {hers} money grows to {k} times as much."],
        "share": ["All the money is split equally among {k} people, and {A} keeps one share."],
        "half": ["{She} spends half of all {hers} money.", "{She} gives half of all {hers} money to {B}."],
        "need": ["A bike costs ${k}. How many more dollars does {A} need?"],
        "together": ["{B} has ${k} more than {A} has now. How many dollars do they have together?"],
        "compare": ["{B} has {k} times as much money as {A} has now. How many dollars do they have together?"],
        "ask": ["How many dollars does {A} have now?", "How many dollars does {A} have left?"],
    },
    "garden": {
        "unit": ["trees", "roses", "tulips", "bushes"],
        "start": ["There are {n} {x} in a garden.", "{A} plants {n} {x}."],
        "groups": ["A garden has {j} rows with {n} {x} in each row.", "{A} plants {j} rows of {n} {x}."],
        "plus": ["{B} plants {k} more.", "In spring {k} more {x} are planted."],
        "minus": ["A storm breaks {k} of them.", "{B} cuts down {k} {x}.", "In winter {k} {x} die."],
        "times": ["After some years there are {k} times as many."],
        "share": ["All the {x} are moved into {k} equal fields, and one field is kept."],
        "half": ["A fire burns half of all the {x}.", "Half of all the {x} are sold."],
        "need": ["A park needs {k} {x}. How many more {x} must be planted?"],
        "ask": ["How many {x} are there now?", "How many {x} are left?"],
    },
    "weather": {
        "unit": ["degrees"],
        "start": ["At dawn it is {n} degrees.", "The day starts at {n} degrees."],
        "plus": ["Then it gets {k} degrees warmer.", "The temperature rises by {k} degrees."],
        "minus": ["Then it gets {k} degrees colder.", "The temperature falls by {k} degrees."],
        "ask": ["What is the temperature in degrees now?", "How many degrees is it now?"],
    },
    "game": {
        "unit": ["points"],
        "start": ["{A} starts a game with {n} points.", "{A} has a score of {n} points."],
        "plus": ["{She} wins {k} points.", "A bonus gives {her} {k} points."],
        "minus": ["{She} loses {k} points.", "A mistake costs {her} {k} points."],
        "ask": ["What is {A}'s score now?", "How many points does {A} have in the end?"],
    },
    "town": {
        "unit": ["visitors", "books", "bricks", "tickets"],
        "start": ["A town counts {n} {x}.", "There are {n} {x} in a big hall."],
        "groups": ["A town has {j} halls with {n} {x} in each hall."],
        "plus": ["Then {k} more {x} come in.", "A second town sends {k} more."],
        "minus": ["Then {k} {x} go to a school.", "The next day {k} of them are gone."],
        "times": ["Within a year there are {k} times as many."],
        "half": ["Half of all the {x} go to a second town."],
        "need": ["The plan asks for {k} {x}. How many more {x} are needed?"],
        "ask": ["How many {x} are there now?", "How many {x} are left?"],
    },
}
SIGNED = {"weather", "game"}  # the number may fall below zero
LARGE = {"town"}  # thousands, in round fifties
