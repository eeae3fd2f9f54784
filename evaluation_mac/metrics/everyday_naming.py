"""
Everyday sounds: some 25 kinds, what is part of them, and the words by which a caption names them.

ESC-50's word lists serve for what is in ESC-50, as parts of the kinds here ("dog" is an animal). `NAMING` has the
rule; a caption that says "a man" of a man's voice names speech, and so does one that says "someone is talking".
"""

from evaluation_mac.metrics.esc50_naming import OTHER_EXPRESSIONS, SOURCE_WORDS
from evaluation_mac.metrics.naming import Naming, expand


_VOICE = "voice, voices"
_SING = "sing, sings, sang, singing, is singing, are singing, hum, hums, humming"
_SHOUT = "shouts, shouting, yells, yelling, screams, screaming, groans, cries out, cries out loudly, calls out"

_WORDS: dict[str, tuple[str, ...]] = {
    "speech": expand(
        "speech, speak, speaks, speaking, spoke, spoken, talk, talks, talking, talked, say, says, saying, said, voice,"
        " voices, reads, reading, narration, monologue, utters, utterance, words, announcement",
    ),
    "man": expand("man, men, male, males, guy, gentleman, man voice, male voice, male voices"),
    "woman": expand("woman, women, female, females, lady, ladies, woman voice, female voice, female voices"),
    "child": expand("child, children, kid, kids, boy, boys, girl, girls, young child, child voice, children voices"),
    "several": expand(
        "conversation, conversations, people talking in turn, talk to each other, several voices, dialogue, two"
        " people, people are talking, people talk, people talking, discussion, chat, chatting"
    ),
    "crowd": expand(
        "crowd, crowds, babble, many people, hubbub, many voices, people talking at once, chatter, chattering,"
        " people talk at the same time, cheer, cheers, cheering"
    ),
    "whisper": expand("whisper, whispers, whispered, whispering", ("soft whisper of a", _VOICE)),
    "computer_voice": expand("synthetic, robotic, robot, computer, synthesized, automated, artificial"),
    "singing": expand(
        "sing, sings, sang, sung, singing, singer, singers, choir, chorus, vocals, song sung",
        (_VOICE, _SING),
        (f"someone, somebody, a person, {_VOICE}, man, woman, child", "hums, humming, is humming"),
        ("man, woman, child, children, people, male, female", "sings, sing, singing, is singing, are singing"),
        ("singing of a, singing of the", "voice, man, woman, child"),
    ),
    "shout": expand(
        "shout, shouts, shouting, shouted, yell, yells, yelled, yelling, scream, screams, screaming, screamed, groan,"
        " groans, groaning, moan, moans, moaning, cries out, cries out loudly",
        (_VOICE, _SHOUT),
        ("shout of a, yell of a, scream of a, groan of a", "voice, person, man, woman"),
    ),
    "applause": expand("applause, applaud, applauds, applauded, applauding, ovation, audience"),
    "music": expand(
        "music, musical, instrument, instruments, instrumental, melody, melodies, tune, tunes, song, songs, band,"
        " notes, chord, chords, piece of music, musician, musicians",
    ),
    "piano": expand("piano, pianos, pianist, harpsichord, keyboard instrument, keyboard music, electric piano"),
    "organ": expand("organ, organs, accordion, harmonica, bagpipes, bagpipe"),
    "guitar": expand("guitar, guitars, guitarist, banjo, sitar, ukulele, bass, bass guitar, double bass"),
    "strings": expand(
        "violin, violins, fiddle, cello, cellos, viola, string instrument, strings, string section, harp, harps,"
        " plucked string instrument, plucked strings, bowed strings",
    ),
    "winds": expand(
        "flute, flutes, clarinet, oboe, bassoon, saxophone, saxophones, trumpet, trumpets, trombone, tuba, brass,"
        " brass instrument, wind instrument, woodwind, recorder, french horn, pan flute",
    ),
    "drums": expand(
        "drum, drums, drumming, drummer, percussion, cymbal, cymbals, tambourine, xylophone, marimba, vibraphone,"
        " glockenspiel, music box, timpani, snare, beat of drums"
    ),
    "electronic": expand("electronic music, synthesizer, synthesizers, synth, techno, drum machine, ambient music"),
    "band": expand(
        "rock music, rock, heavy metal music, heavy metal, metal music, pop music, jazz, jazz music, orchestra,"
        " orchestral, orchestral music, folk music, classical music, symphony, pop song, rock song"
    ),
    "animal": expand("animal, animals, creature, creatures, beast, beasts"),
    "vehicle": expand(
        "vehicle, vehicles, car, cars, traffic, truck, trucks, bus, buses, motorcycle, motorcycles, motorbike, boat,"
        " boats, ship, ships, driving, aircraft, scooter",
        ("cars and", "traffic"),
    ),
    "machine": expand(
        "machine, machines, mechanical, mechanism, machinery, mechanical hum, power tool, tool, tools, motorized,"
        " appliance, device hums, fan, drill, electric shaver, blender, printer"
    ),
    "hum": expand("hum, hums, humming, electric hum, buzz of electricity, hums steadily, steady hum"),
    "telephone": expand("telephone, telephones, phone, phones, ringtone, ringtones, dial tone, phone line"),
    "alarm": expand("alarm, alarms, warning alarm, smoke alarm, fire alarm, buzzer"),
    "beep": expand(
        "beep, beeps, beeping, bleep, bleeps, tone, tones, pure tone, electronic tone, whistle signals, loud whistle,"
        " deep signal",
        ("tones of a, tones of a", "machine"),
    ),
    "bell": expand("bell, bells, chime, chimes, chiming"),
    "gunshot": expand("gun, guns, gunshot, gunshots, gunfire, explosion, explosions, shot, shots, rifle, pistol"),
    "door": expand("door, doors, gate"),
    "dishes": expand("dish, dishes, pot, pots, pan, pans, plate, plates, cutlery, kitchenware, cup, cups"),
    "water": expand("water, liquid, splash, splashes, splashing, gurgle, gurgles, gurgling, stream, waterfall"),
    "object": expand(
        "object, objects, something is handled, something is moved, being handled, being moved, handled and rattles,"
        " scrapes against something, something rattles"
    ),
    "metal": expand(
        "metal, metallic, metal objects, clang, clangs, clanging, clink, clinks, clinking, jingle, jingling"
    ),
    "person": expand("person makes a sound, sound of a person, noise with the mouth, noise made with the mouth"),
    "noise": expand("noise, noises, static, hiss of noise, white noise, hiss of static, plain static noise"),
    "silence": expand("silence, silent, no sound, nothing, without any sound, nothing at all"),
}

PART_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("man", "woman", "child", "several", "crowd", "whisper", "computer_voice"), ("speech",)),
    **dict.fromkeys(("piano", "organ", "guitar", "strings", "winds", "drums", "electronic", "band"), ("music",)),
    **dict.fromkeys(("dog", "pig", "cow", "frog", "cat", "insects", "sheep", "crickets"), ("animal",)),
    **dict.fromkeys(("rooster", "hen", "crow", "chirping_birds"), ("animal",)),
    **dict.fromkeys(("rain", "sea_waves", "water_drops", "pouring_water", "toilet_flush"), ("water",)),
    **dict.fromkeys(("train", "car_horn"), ("vehicle",)),
    **dict.fromkeys(("engine", "helicopter", "airplane"), ("vehicle", "machine")),
    **dict.fromkeys(("washing_machine", "vacuum_cleaner", "chainsaw", "hum"), ("machine",)),
    **dict.fromkeys(
        ("sneezing", "breathing", "coughing", "snoring", "drinking_sipping", "brushing_teeth"), ("person",)
    ),
    **dict.fromkeys(("door_wood_knock", "door_wood_creaks"), ("door", "object")),
    **dict.fromkeys(("mouse_click", "keyboard_typing", "clock_tick", "can_opening", "hand_saw", "door"), ("object",)),
    "dishes": ("object", "metal"),
    "glass_breaking": ("dishes", "object"),
    "metal": ("object",),
    "bell": ("metal",),
    "church_bells": ("bell",),
    "clapping": ("applause", "person"),
    "applause": ("person",),
    "footsteps": ("person",),
    "laughing": ("person",),
    "clock_alarm": ("alarm",),
    **dict.fromkeys(("alarm", "telephone"), ("beep",)),  # it beeps, too
    "fireworks": ("gunshot",),
}

# The kinds of the table of results: every other one is part of one of these.
KINDS = (
    "speech", "singing", "shout", "crying_baby", "person", "music", "animal", "water", "thunderstorm", "wind",
    "crackling_fire", "vehicle", "machine", "siren", "alarm", "telephone", "beep", "bell", "gunshot", "door", "dishes",
    "metal", "object", "noise", "silence",
)  # fmt: skip

_SINGS = "sing, sings, sing and chirp, chirping and singing, sings a song, singing, is singing, are singing"
_MORE = {  # of ESC-50's kinds: expressions with a word of another kind here
    "chirping_birds": expand(
        "bright notes, birdsong, song of a bird, songs of birds, singing of birds",
        ("bird, birds, chirping bird, chirping birds", _SINGS),
        ("song of a chirping, songs of chirping", "bird, birds"),
    ),
    "hen": expand("clucks in short notes"),
    "crying_baby": expand("", ("baby, crying baby, baby is", "screams, sobs and screams, screaming"))[1:],
    "mouse_click": expand("computer mouse"),
    "keyboard_typing": expand("computer keyboard"),
    "door_wood_creaks": expand("creak and groan, hinges creak and groan, groan of creaking door hinges"),
}

# Expressions with a word of some kind that name none.
_OTHER = expand(
    "record player, boxing bell, shot of espresso, bus stop, deep voice of, music of the rain",
    ("in a", "rising voice, deep voice, rough voice, whining voice, shaky voice, harsh voice"),
    ("shaky, harsh, rough, whining, rising", "voice"),
)


def _merge() -> dict[str, tuple[str, ...]]:
    """The words here and ESC-50's; where both have an expression, these."""
    taken = {expression for expressions in _WORDS.values() for expression in expressions}
    rest = {
        source: tuple(one for one in dict.fromkeys((*expressions, *_MORE.get(source, ()))) if one not in taken)
        for source, expressions in SOURCE_WORDS.items()
    }
    return {**_WORDS, **rest}


def kind_of(name: str) -> str:
    """
    The kind in the table of results: of "violin", music.

    Raises:
        ValueError: no such name.
    """
    NAMING.check(name)
    return name if name in KINDS else kind_of(PART_OF[name][0])


EVERYDAY_WORDS = _merge()
_TAKEN = {expression for expressions in EVERYDAY_WORDS.values() for expression in expressions}

NAMING = Naming(
    EVERYDAY_WORDS,
    [one for one in (*OTHER_EXPRESSIONS, *_OTHER) if one not in _TAKEN],
    PART_OF,
    "everyday kinds",
    noticed=("speech", "music"),
)
