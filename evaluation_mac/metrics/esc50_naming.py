"""The 50 categories of ESC-50 in words: what a caption may call each of them, and what it must not be taken for."""

from evaluation_mac.metrics.naming import Naming
from evaluation_mac.metrics.naming import expand as _words


_MOTOR = "engine, engines, motor, motors"
_LAUGH = "laugh, laughs, laughing, laughed, laughter, giggle, giggles, giggling, chuckles, chuckling"
_VEHICLE = "car, cars, truck, vehicle, vehicles, van, bus"
_REV = "revs, revving, idles, idling, accelerates, accelerating, is revving, is idling, is accelerating"

SOURCE_WORDS: dict[str, tuple[str, ...]] = {
    "dog": _words(
        "dog, dogs, doggy, puppy, puppies, pup, pups, hound, hounds, canine, bark, barks, barked, barking, woof,"
        " woofs, woofing, yap, yaps, yapping, yelp, yelps, yelping"
    ),
    "rooster": _words(
        "rooster, roosters, cockerel, cockerels, cock, cocks, crowing, crowed, cock crow, cock a doodle doo",
        ("rooster, roosters, cock, cockerel, bird", "crow, crows, is crowing, crowing"),
        ("chicken, male chicken", "crows, crowing, is crowing"),
        ("crow of a, crows of a, crow of the, crow from a", "rooster, cock, cockerel"),
    ),
    "pig": _words("pig, pigs, piglet, piglets, hog, hogs, swine, sow, boar, oink, oinks, oinked, oinking"),
    "cow": _words("cow, cows, cattle, bull, calf, heifer, moo, moos, mooed, mooing, cow bell, cow bells, cowbell"),
    "frog": _words(
        "frog, frogs, toad, toads, bullfrog, bullfrogs, croak, croaks, croaked, croaking, ribbit, ribbits, ribbiting"
    ),
    "cat": _words(
        "cat, cats, kitten, kittens, kitty, feline, meow, meows, meowed, meowing, miaow, miaows, miaowing, mew, mews,"
        " mewing, mewling, caterwaul, caterwauling",
        ("cat, cats, kitten, kittens", "cry, cries, crying, is crying"),
    ),
    "hen": _words("hen, hens, chicken, chickens, chick, chicks, poultry, cluck, clucks, clucked, clucking"),
    "insects": _words(
        "insect, insects, bug, bugs, bee, bees, bumblebee, bumblebees, wasp, wasps, hornet, hornets, mosquito,"
        " mosquitoes, mosquitos, gnat, gnats, housefly, houseflies, midge, midges, swarm, swarms, swarming, a fly,"
        " fly buzz, buzz of flies, buzzing of flies, the flies",
        ("fly, flies", "buzzes, buzz, buzzing, is buzzing, are buzzing, buzzed"),
        ("buzzing, some, several, many", "fly, flies"),
    ),
    "sheep": _words(
        "sheep, lamb, lambs, ewe, ewes, bleat, bleats, bleated, bleating, baa, baas, baaing, baaed, sheep bell,"
        " sheep bells"
    ),
    "crow": _words(
        "crow, crows, raven, ravens, rook, rooks, caw, caws, cawed, cawing",
        ("bird, birds", "caw, caws, cawing, is cawing, are cawing"),
        ("crow, crows, raven", "cry, cries, crying, is crying"),
    ),
    "rain": _words(
        "rain, rains, rained, raining, rainy, rainfall, rainstorm, rain storm, raindrop, raindrops, downpour, drizzle,"
        " drizzles, drizzling, rain drop, rain drops, rain droplets, droplets of rain,"
        " pouring down, pours down, down pour",
        ("rain, rain is, rain comes", "dripping, drips, pouring, pours"),
        ("pouring, dripping", "rain"),
    ),
    "sea_waves": _words(
        "sea, seas, seaside, seashore, ocean, oceans, surf, wave, waves, beach, shore, shores, shoreline, seawater,"
        " tide, tides, coast",
        ("wave, waves", "break, breaks, breaking, are breaking, crash and break"),
        ("breaking, broken", "wave, waves"),
    ),
    "crackling_fire": _words(
        "fire, fires, campfire, campfires, bonfire, bonfires, fireplace, flame, flames, burn, burns, burning, embers,"
        " wildfire, blaze, crackling wood, wood crackles, wood crackling, logs crackle, logs crackling, crackling logs"
    ),
    "crickets": _words(
        "cricket, crickets, grasshopper, grasshoppers, cicada, cicadas, katydid, katydids",
        ("chirping, chirruping, trilling, singing", "insect, insects, bug, bugs"),
        ("insect, insects, bug, bugs", "chirp, chirps, chirping, is chirping, are chirping, trill, trilling"),
    ),
    "chirping_birds": _words(
        "bird, birds, birdsong, birdsongs, songbird, songbirds, birdcall, birdcalls, sparrow, sparrows, tweet, tweets,"
        " tweeted, tweeting, twitter, twitters, twittering, robin, robins, blackbird, blackbirds, warbler, warblers,"
        " finch, finches, canary"
    ),
    "water_drops": _words(
        "drip, drips, dripped, dripping, droplet, droplets, dribble, dribbles, drops of water, drop of water,"
        " drops of liquid, water drop, water drops, waterdrop, waterdrops, drop after drop, drop by drop",
        ("drop, drops", "fall, falls, falling, are falling, is falling, land, plop, splash"),
        ("falling, single, slow, small, liquid", "drop, drops"),
    ),
    "wind": _words("wind, winds, windy, windstorm, wind storm, gust, gusts, gusting, gusty, breeze, gale, gales"),
    "pouring_water": _words(
        "pour, pours, poured, pouring, pours a drink, pouring a drink, drink is poured, drink being poured,"
        " pouring of a drink, pours drinks, pouring water into a can",
        (
            "fills, filling, filling up, fills up, being filled",
            "a glass, a cup, a mug, a bottle, a bucket, a container",
        ),
        ("fills with, filled with, filling with", "water, liquid"),
        ("glass, cup, mug, bottle, bucket, container", "is filled, is being filled, fills up, being filled"),
    ),
    "toilet_flush": _words("toilet, toilets, lavatory, flush, flushes, flushed, flushing, water closet, urinal"),
    "thunderstorm": _words(
        "thunder, thunders, thundering, thunderous, thunderstorm, thunderstorms, thunderclap, thunderclaps, lightning,"
        " storm, storms, stormy",
        ("thunder", "clap, claps, clapping, breaks"),
        ("clap of, claps of", "thunder"),
    ),
    "crying_baby": _words(
        "baby, babies, infant, infants, newborn, toddler, cry, cries, cried, crying, sob, sobs, sobbing, weep, weeps,"
        " weeping"
    ),
    "sneezing": _words(
        "sneeze, sneezes, sneezed, sneezing, sneezer, achoo, atchoo",
        ("baby, infant, toddler, dog, cat", "sneeze, sneezes, sneezing, is sneezing"),
    ),
    "clapping": _words(
        "clap, claps, clapped, clapping, handclap, handclaps, handclapping, applause, applaud, applauds, applauded,"
        " applauding, ovation"
    ),
    "breathing": _words(
        "breath, breaths, breathe, breathes, breathed, breathing, inhale, inhales, inhaled, inhaling, inhalation,"
        " exhale, exhales, exhaled, exhaling, exhalation",
        ("baby, infant", "breathes, breathing, is breathing"),
    ),
    "coughing": _words(
        "cough, coughs, coughed, coughing, cougher",
        ("baby, infant, toddler", "cough, coughs, coughing, is coughing"),
    ),
    "footsteps": _words(
        "footstep, footsteps, foot step, footfall, footfalls, walk, walks, walked, walking, walker, march,"
        " marches, marching, stroll, strolls, strolling, stomp, stomps, stomping, tread, treads, treading, stride,"
        " strides, striding, steps, stepping, running feet, feet running"
    ),
    "laughing": _words(
        f"{_LAUGH}, giggled, chuckle, chuckled, guffaw, guffaws",
        ("baby, babies, infant, toddler, baby is, babies are", _LAUGH),
        ("laughing, giggling, chuckling", "baby, babies, infant, toddler"),
        ("laugh of a, laughter of a, giggle of a, giggles of a, laughing of a, giggling of a", "baby, toddler"),
    ),
    "brushing_teeth": _words(
        "tooth, teeth, toothbrush, toothbrushes, toothbrushing, brush, brushes, brushed, brushing"
    ),
    "snoring": _words(
        "snore, snores, snored, snoring, snorer",
        ("baby, dog, cat", "snores, snoring, is snoring"),
        ("snoring", "baby, dog, cat"),
    ),
    "drinking_sipping": _words(
        "drink, drinks, drank, drinking, drinker, sip, sips, sipped, sipping, slurp, slurps, slurped, slurping, gulp,"
        " gulps, gulped, gulping, guzzle, guzzles, guzzling, swig, swigs, swallow, swallows, swallowed, swallowing",
        ("drinks, drinking, sips, sipping", "from a can, out of a can, a can of soda"),
    ),
    "door_wood_knock": _words(
        "knock, knocks, knocked, knocking, knocker",
        ("raps, rapping, taps, tapping, bangs, banging, pounds, pounding", "on a door, on the door, at the door"),
        ("raps, rapping, taps, tapping, bangs, banging, pounds, pounding", "on a wooden door, on wood"),
    ),
    "mouse_click": _words(
        "mouse, mouses, mouseclick",
        ("clicking a, clicks a, pressing a, presses a", "button"),
    ),
    "keyboard_typing": _words("keyboard, keyboards, typing, typed, typist, keystroke, keystrokes, types"),
    "door_wood_creaks": _words(
        "creak, creaks, creaked, creaking, creaky, squeak, squeaks, squeaked, squeaking, squeaky, hinge, hinges,"
        " opens and closes, opened and closed, opening and closing",
        ("door, gate", "groans, groaning, is groaning"),
        ("door, gate", "opens, opening, is opening, closes, closing, is closing, swings, swinging, is swinging"),
        ("opening, closing, swinging, groaning", "door, gate"),
        ("opening, closing", "of a door, of the door, of a wooden door, a door, the door, a wooden door"),
        ("opens, closes", "a door, the door, a wooden door"),
    ),
    "can_opening": _words(
        "a can, the can, of can, their can, his can, her can, cans, another can, ring pull, pull tab, pop top,"
        " can opener, can of soda, can of beer, can of drink",
        (
            "soda, beer, tin, metal, aluminum, aluminium, drink, drinks, cola, pop, beverage, fizzy drink, soft drink",
            "can, cans",
        ),
        ("can", "opens, opening, is opened, being opened, is opening, is being opened, tab, pops, hisses, cracks"),
        ("can of, cans of", "soda, beer, pop, fizzy drink, drink"),
    ),
    "washing_machine": _words(
        "washing machine, washing machines, washer, washers, laundry, spin cycle, wash cycle, washing clothes",
        ("washing machine", _MOTOR),
    ),
    "vacuum_cleaner": _words(
        "vacuum, vacuums, vacuumed, vacuuming, hoover, hoovers, hoovering, carpet cleaner",
        ("vacuum, vacuum cleaner, hoover", _MOTOR),
        ("motor of a, motor of the", "vacuum, hoover"),
    ),
    "clock_alarm": _words(
        "alarm, alarms, alarm bell, alarm bells, alarm clock bell,"
        " bell of an alarm clock, bells of an alarm clock, beeping clock, ringing clock, buzzing clock",
        ("clock, clock is", "rings, ringing, beeps, beeping, buzzes, buzzing, goes off, going off"),
    ),
    "clock_tick": _words(
        "tick, ticks, ticked, ticking, tick tock, ticktock, tock, tocks, clock clicks,"
        " clock clicking, pendulum, stopwatch, metronome"
    ),
    "glass_breaking": _words(
        "break, breaks, breaking, broke, broken, breakage, shatter, shatters, shattered, shattering, smash, smashes,"
        " smashed, smashing, shard, shards, splinters of glass",
        ("glass", "crashes, crashing, crash, cracks, cracking"),
        ("crashing, cracking, crash of, crack of", "glass"),
    ),
    "helicopter": _words(
        "helicopter, helicopters, chopper, choppers, rotor, rotors",
        ("helicopter, helicopters, chopper", f"{_MOTOR}, rotor, rotors"),
        ("engine of a, engines of a, motor of a", "helicopter"),
    ),
    "chainsaw": _words(
        "chainsaw, chainsaws, chain saw, chain saws",
        ("chainsaw, chain saw", f"{_MOTOR}, saws, sawing, is sawing"),
        ("engine of a, motor of a", "chainsaw, chain saw"),
    ),
    "siren": _words(
        "siren, sirens, ambulance, ambulances, police, patrol car, emergency vehicle,"
        " emergency vehicles, emergency car, fire truck, fire trucks, fire engine, fire engines, firetruck,"
        " firetrucks, fire brigade, siren alarm, alarm siren",
        ("siren, sirens", "cries, cry, crying"),
    ),
    "car_horn": _words("horn, horns, honk, honks, honked, honking, honker, toot, toots, tooting, beep beep"),
    "engine": _words(
        f"{_MOTOR}, motorcycle, motorcycles, motorbike, motorbikes, tractor, tractors, lawnmower, lawn mower",
        (_VEHICLE, _REV),
        ("revving, idling, running, accelerating", "car, truck, vehicle, van, bus"),
    ),
    "train": _words(
        "train, trains, locomotive, locomotives, railway, railways, railroad, railroads, subway, rail, rails,"
        " level crossing, steam engine, steam whistle",
        ("train, trains, locomotive", f"{_MOTOR}, horn, horns, bell, bells, siren, whistle, whistles, brakes"),
        ("train, trains", "honk, honks, honking, is honking"),
        ("horn of a, engine of a, bell of a", "train, locomotive"),
    ),
    "church_bells": _words(
        "church, churches, bell, bells, toll, tolls, tolled, tolling, carillon, belfry, cathedral",
    ),
    "airplane": _words(
        "airplane, airplanes, aeroplane, aeroplanes, plane, planes, aircraft, aircrafts, jet, jets, jetliner,"
        " airliner, airliners, seaplane, biplane",
        ("airplane, aeroplane, plane, planes, aircraft, jet, jets, propeller, turboprop", _MOTOR),
        ("engine of an, engines of an, motor of an", "airplane, aeroplane, aircraft"),
        ("engine of a, engines of a, motor of a", "plane, jet"),
    ),
    "fireworks": _words(
        "firework, fireworks, fire work, fire works, firecracker, firecrackers, fire cracker, fire crackers,"
        " pyrotechnics, pyrotechnic"
    ),
    "hand_saw": _words("saw, saws, sawed, sawing, sawn, handsaw, handsaws, hacksaw"),
}

# Expressions that hold a source's word but mean something else: they use up their words and name nothing.
OTHER_EXPRESSIONS: tuple[str, ...] = _words(
    "fire alarm, fire alarms, smoke alarm, smoke alarms, car alarm, car alarms, burglar alarm, door bell, door bells,"
    " bicycle bell, bike bell, sleigh bell, sleigh bells, jingle bells, school bell, wind chime, wind chimes,"
    " wind up, winds up, wind down, winds down, types of, type of, fly by, gun fire, gunfire, machine gun fire,"
    " sea gull, sea gulls, jet of, circular saw, table saw, power saw, electric saw, hot dog, sound wave, sound waves,"
    " without a break, without any break, breaks the silence, breaking the silence, light rail, hand rail"
)

NAMING = Naming(SOURCE_WORDS, OTHER_EXPRESSIONS, called="ESC-50 categories")
