"""The 72 objects that the simulation can draw: 12 THINGS categories of six concepts, as vector primitives.

A drawing begins with three words: the largest natural rotation (degrees), the body colours and the accent
colours, as three-digit hexadecimal RGB joined by "/", or "any". Then follow the parts, back to front, divided
by ";" and wrapped anywhere, in unit coordinates (x to the right, y down, about -1..1; fitted to the picture
when drawn):

    oval ROLE x y rx ry [degrees]        box ROLE x y half-width half-height [corner radius]
    poly ROLE x y x y ...                blob ROLE x y x y ...   (closed, smooth)
    fan ROLE x y rx ry from to           (a filled sector; degrees, clockwise from the right)
    line ROLE width x y x y ...          curve ROLE first-width last-width x y x y ...   (smooth)
    arc ROLE width x y rx ry from to

ROLE is body, shade or tint (the body, darker or lighter), accent, dark, light, or a fixed colour. A kind that
ends in "2" is drawn a second time mirrored at x = 0; "*N dx dy degrees" before a kind draws it N times, each
rotated about the origin and then moved once more than the last.
"""

from __future__ import annotations

from collections.abc import Mapping

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "animal": ("cat", "elephant", "giraffe", "shark", "snake", "turtle"),
    "bird": ("duck", "flamingo", "owl", "peacock", "penguin", "toucan"),
    "body part": ("ear", "eye", "foot", "hand", "mouth", "tooth"),
    "clothing": ("boot", "bowtie", "dress", "pants", "t-shirt", "top_hat"),
    "fruit": ("apple", "banana", "cherry", "grape", "pineapple", "watermelon"),
    "furniture": ("bed", "bookshelf", "chair", "coat_rack", "couch", "table"),
    "insect": ("ant", "bee", "butterfly", "caterpillar", "dragonfly", "ladybug"),
    "kitchen tool": ("corkscrew", "funnel", "grater", "kettle", "rolling_pin", "whisk"),
    "medical equipment": ("bandage", "crutch", "first-aid_kit", "inhaler", "stethoscope", "syringe"),
    "musical instrument": ("drum", "guitar", "harp", "piano", "trumpet", "xylophone"),
    "vehicle": ("airplane", "bike", "car", "helicopter", "hot-air_balloon", "sailboat"),
    "vegetable": ("broccoli", "carrot", "corn", "eggplant", "pea", "pumpkin"),
}

DRAWINGS: Mapping[str, str] = {
    "cat": """10 d83/222/ddd/888/a75/b52 fbb/dcb; curve body .16 .1 .3 .82 .75 .8 .85 .45 .7 .15; blob body
    -.4 .9 -.48 .45 -.25 -.1 .25 -.1 .48 .45 .4 .9; oval tint 0 .3 .17 .3; oval2 body .17 .88 .16 .09; line
    shade .03 0 .45 0 .92; poly2 body .08 -.7 .42 -1 .42 -.4; poly2 accent .18 -.68 .37 -.86 .36 -.55; oval
    body 0 -.42 .45 .37; oval2 ad4 .18 -.47 .11 .1; oval2 dark .18 -.47 .04 .09; oval2 tint .09 -.25 .1 .08;
    poly dark -.07 -.34 .07 -.34 0 -.25; line2 dark .02 .15 -.27 .6 -.36; line2 dark .02 .15 -.22 .6 -.2""",
    "elephant": """8 889/a98/766/bbb/655/987 dbb/a99/777; curve shade .07 .04 -.7 -.15 -.92 .1 -.88 .4; box
    shade -.3 .55 .12 .38 .06; box shade .3 .55 .12 .38 .06; blob body -.78 .1 -.62 -.42 -.1 -.55 .35 -.4 .42
    .2 0 .38 -.55 .4; box body -.57 .55 .14 .4 .06; box body .05 .55 .14 .4 .06; oval body .52 -.28 .3 .33;
    curve body .28 .12 .68 -.15 .84 .2 .78 .62 .98 .72; curve light .1 .02 .66 .04 .82 .2 1.02 .12; blob
    accent .4 -.52 .12 -.5 .02 -.2 .1 .12 .3 .18 .42 -.1; oval dark .62 -.33 .04 .045; *2 .62 0 0 line tint
    .04 -.66 .92 -.48 .92""",
    "giraffe": """6 db6/eca/c95/eb8 841/632/a63/511; curve body .06 .04 -.5 .05 -.68 .2 -.64 .42; oval dark
    -.64 .46 .05 .08; line shade .11 -.32 .3 -.3 1; line shade .11 .2 .25 .26 1; line body .11 -.46 .25 -.5 1;
    line body .11 .06 .3 .04 1; blob body -.55 .15 -.4 -.06 0 -.14 .26 .02 .2 .32 -.2 .4 -.52 .36; poly body
    -.1 .05 .28 -.92 .46 -.84 .28 .2; line dark .05 .34 -.9 .3 -1.08; line dark .05 .42 -.92 .42 -1.1; oval
    body .24 -.86 .12 .05 20; blob body .3 -.95 .46 -.95 .78 -.76 .76 -.66 .45 -.7; oval dark .46 -.85 .03
    .03; *3 .1 -.26 0 blob accent .02 .02 .1 -.12 .2 -.02 .12 .1; *3 .11 -.25 0 oval accent .2 .06 .06 .07; *4
    .17 -.02 0 oval accent -.42 .1 .07 .08; *3 .19 0 0 oval accent -.36 .27 .08 .06""",
    "shark": """14 678/89a/457/9a9/556 eee; poly body -.62 -.06 -1.05 -.55 -.86 .02 -1 .36 -.6 .08; poly body
    .25 -.2 -.12 -.72 -.16 -.18; blob body 1 .02 .6 -.24 .1 -.32 -.4 -.16 -.75 -.05 -.75 .05 -.3 .16 .2 .26 .7
    .22; blob light .9 .13 .4 .1 -.5 .07 -.3 .16 .2 .26 .7 .21; poly shade .3 .08 -.06 .62 -.08 .14; poly
    shade -.4 .1 -.58 .3 -.56 .1; *4 .08 0 0 line dark .025 .26 -.12 .22 .06; oval dark .74 -.07 .04 .04;
    curve dark .05 .02 .95 .1 .8 .12 .66 .2""",
    "snake": """60 584/a83/cb4/733/467/ddc 222/542/eda/b33; line c22 .03 .7 -.62 .92 -.62; line c22 .03 .9
    -.62 1 -.7; line c22 .03 .9 -.62 1 -.54; curve body .03 .24 -1 .5 -.75 .25 -.45 .45 -.1 .7 .35 .7 .6 .4 .3
    .12 -.2 .1 -.5 -.15 -.3 -.5 .1 -.6 .5 -.62; oval body .56 -.62 .24 .16; oval dark .64 -.68 .04 .04; line
    accent .07 -.1 .63 -.14 .74; line accent .07 .32 .63 .36 .76; line accent .07 .53 .38 .68 .43; line accent
    .07 .2 .04 .18 .2; line accent .07 -.22 .01 -.24 .17; line accent .07 -.58 -.16 -.4 -.14; line accent .07
    -.4 -.54 -.28 -.4; line accent .07 .04 -.7 .06 -.5; line accent .06 -.5 .34 -.56 .46""",
    "turtle": """10 573/842/665/896/a83 8a4/aa6/787/cb7; poly accent -.6 .22 -.95 .4 -.55 .38; line accent .2
    .5 .15 .74 -.1; oval accent .8 -.16 .2 .16; oval accent .42 .48 .16 .22 -15; oval accent -.45 .48 .16 .22
    15; blob body -.78 .32 -.66 -.12 -.3 -.5 .1 -.5 .48 -.12 .62 .3 .2 .36 -.4 .36; line shade .1 -.74 .34 .6
    .32; poly tint -.22 -.36 .08 -.36 .2 -.08 .05 .16 -.2 .16 -.34 -.08; line shade .035 -.34 -.08 -.66 -.04;
    line shade .035 .2 -.08 .5 -.04; line shade .035 -.2 .16 -.3 .32; line shade .035 .05 .16 .14 .32; oval
    dark .86 -.2 .035 .035; line dark .02 .84 -.08 .98 -.1""",
    "duck": """10 eed/fd3/865/aa9/754 475/986/fff/b95; poly e92 .55 -.6 .95 -.5 .95 -.4 .55 -.38; curve body
    .4 .28 .15 .25 .36 -.1 .34 -.5; blob body -1 -.15 -.65 .12 -.1 .05 .3 -.02 .5 .3 .3 .58 -.25 .66 -.75 .45;
    oval accent .38 -.52 .27 .24; blob shade -.8 .15 -.2 .12 .15 .28 .05 .46 -.35 .5; line dark .02 -.55 .36
    -.1 .38; line c71 .02 .62 -.47 .93 -.45; oval light .46 -.58 .06 .06; oval dark .47 -.58 .035 .035""",
    "flamingo": """6 f89/fab/e67/fcc/f76 222/d45; line c78 .05 .08 .1 .1 1; line c78 .05 -.1 .1 .25 .5; line
    c78 .05 .25 .5 -.02 .6; line c78 .04 .1 1 .24 1; poly shade -.3 -.1 -.62 .2 -.2 .2; oval body -.02 0 .42
    .24 -8; curve body .16 .09 .26 -.02 .6 -.12 .56 -.4 .3 -.55 .3 -.82 .48 -.92 .6 -.86; oval body .56 -.86
    .13 .1; curve light .1 .06 .64 -.84 .76 -.78 .8 -.7; curve dark .08 .03 .78 -.74 .8 -.66 .76 -.56; blob
    shade -.45 .05 -.1 -.12 .2 -.05 0 .14; oval dark .56 -.89 .025 .025""",
    "owl": """8 863/a98/543/ccb/975/dcb fec/b96/654; poly2 body .08 -.7 .55 -1 .52 -.3; oval body 0 .08 .54
    .82; oval2 shade .48 .2 .15 .5 8; oval accent 0 .4 .32 .42; *3 .18 0 0 line dark .03 -.2 .3 -.16 .36; *3
    .18 0 0 line dark .03 -.2 .5 -.16 .56; oval2 light .24 -.34 .25 .25; oval2 e92 .23 -.34 .18 .18; oval2
    dark .22 -.34 .1 .1; oval2 light .26 -.39 .03 .03; poly da3 -.09 -.2 .09 -.2 0 .04; *3 .08 0 0 line2 da3
    .06 .1 .86 .1 .96""",
    "peacock": """6 275/386/467/ddd 24a/169/426; *13 0 0 15 oval body -.56 0 .46 .14; *13 0 0 15 oval tint
    -.84 0 .14 .1; *13 0 0 15 oval accent -.86 0 .09 .07; *13 0 0 15 oval dark -.87 0 .05 .04; *8 0 0 25 oval
    tint -.5 0 .09 .06; line2 a84 .04 .08 .6 .1 .86; blob accent -.12 -.35 .1 -.35 .14 0 .26 .3 .16 .66 -.16
    .66 -.26 .3 -.14 0; oval accent 0 -.38 .14 .13; *3 0 0 10 line accent .025 -.08 -.45 -.12 -.62; oval2
    light .06 -.4 .04 .04; oval2 dark .06 -.4 .02 .02; poly ec6 -.05 -.34 .05 -.34 0 -.24""",
    "penguin": """8 123/234/333/456/532 fff; oval2 e92 .2 .92 .17 .07; oval2 body .47 .15 .11 .42 -14; oval
    body 0 .15 .45 .76; oval light 0 .28 .32 .6; oval body 0 -.62 .3 .3; oval2 light .12 -.58 .14 .18; oval2
    dark .11 -.64 .04 .05; poly e92 -.1 -.55 .1 -.55 0 -.38; oval2 fc4 .3 -.4 .06 .11""",
    "toucan": """10 222/334/132/421 ea2/d63/7b3/e44; poly shade -.3 .45 -.75 1 -.45 1 -.08 .6; blob body -.45
    .5 -.5 0 -.2 -.5 .15 -.7 .3 -.4 .2 .1 -.05 .6; oval body .1 -.52 .3 .28; oval light .2 -.3 .22 .26; blob
    shade -.5 .05 -.2 -.1 .02 .2 -.15 .5 -.45 .7; blob accent .3 -.7 .65 -.78 .95 -.6 1.05 -.25 .9 -.32 .6 -.4
    .32 -.36; blob dark .95 -.58 1.05 -.25 .9 -.34; line dark .025 .34 -.5 .92 -.46; oval 4ae .16 -.58 .1 .09;
    oval dark .16 -.58 .05 .05; line2 777 .05 .12 .55 .12 .76; line 752 .09 -.5 .76 .7 .76""",
    "ear": """14 fdc/eb9/c96/a74/854/643 c98; blob body -.3 -.8 .1 -.98 .5 -.75 .62 -.3 .45 .15 .25 .45 .12
    .85 -.18 .95 -.38 .65 -.35 .1 -.48 -.4; curve shade .1 .06 -.3 -.3 -.25 -.68 .15 -.8 .44 -.5 .38 -.1 .2
    .2; blob shade -.2 -.25 .1 -.4 .2 -.1 .02 .3 -.22 .35 -.28 .1; blob dark -.2 .02 -.02 -.1 .04 .05 -.12
    .22; oval body -.28 .12 .1 .16; curve tint .06 .03 -.36 -.4 -.22 -.78 .15 -.9 .5 -.55; oval tint -.12 .72
    .1 .12""",
    "eye": """12 fdc/eb9/c96/a74/854/643 37b/642/483/68a/222/765; oval body 0 0 1 .78; curve dark .06 .14 -.78
    -.42 -.3 -.66 .3 -.64 .82 -.36; blob light -.78 .1 -.4 -.25 .1 -.33 .5 -.18 .8 .12 .3 .36 -.3 .36; oval
    accent .02 .02 .31 .32; oval dark .02 .02 .15 .15; oval light .11 -.09 .06 .06; curve shade .05 .04 -.8
    -.1 -.3 -.44 .3 -.44 .8 -.1; curve dark .08 .06 -.82 .12 -.4 -.26 .1 -.34 .5 -.2 .84 .14; line dark .04
    -.6 -.12 -.74 -.26; line dark .04 -.3 -.3 -.38 -.46; line dark .04 .05 -.34 .06 -.52; line dark .04 .38
    -.26 .46 -.42; line dark .04 .66 -.06 .8 -.18; oval d99 -.7 .1 .06 .05""",
    "foot": """30 fdc/eb9/c96/a74/854/643 c98; blob body -.36 -.28 0 -.44 .36 -.45 .44 -.1 .26 .25 .3 .7 .05
    .98 -.24 .8 -.2 .35 -.4 0; oval body .28 -.66 .16 .22 6; oval body .02 -.64 .105 .16; oval body -.17 -.56
    .09 .14 -8; oval body -.32 -.45 .08 .12 -14; oval body -.44 -.3 .07 .1 -20; oval tint .05 -.22 .3 .14;
    oval tint .03 .72 .16 .17; curve shade .05 .02 -.2 .4 -.06 .2 -.12 .02""",
    "hand": """40 fdc/eb9/c96/a74/854/643 c98; line body .24 -.3 .4 -.36 -.55; line body .25 -.1 .3 -.12 -.78;
    line body .24 .12 .3 .14 -.7; line body .2 .32 .4 .38 -.42; line body .24 -.2 .6 -.72 .08; blob body -.45
    .2 -.3 -.02 .1 -.05 .42 .08 .45 .5 .28 .98 -.25 .98 -.42 .6; curve shade .03 .03 -.3 .2 -.05 .3 .1 .55 .05
    .8; curve shade .03 .03 -.35 .1 0 .18 .4 .12; curve shade .03 .03 .4 .26 .15 .38 -.05 .3; oval tint -.36
    -.6 .06 .08; oval tint -.12 -.83 .06 .08; oval tint .14 -.75 .06 .08; oval tint .38 -.46 .05 .07; oval
    tint -.76 .04 .07 .06""",
    "mouth": """14 c34/a23/d67/846/e79/b54/713 fff; blob shade -1 0 -.5 -.34 0 -.3 .5 -.34 1 0 .6 .5 0 .66 -.6
    .5; blob dark -.78 .02 -.3 -.16 .3 -.16 .78 .02 .4 .3 -.4 .3; box light 0 -.04 .5 .1 .06; *5 .2 0 0 line
    999 .02 -.4 -.1 -.4 .04; oval d66 0 .26 .34 .12; blob body -1 0 -.6 -.26 -.22 -.5 0 -.4 .22 -.5 .6 -.26 1
    0 .5 -.1 0 -.14 -.5 -.1; blob body -1 0 -.55 .22 0 .3 .55 .22 1 0 .6 .46 0 .64 -.6 .46; curve tint .04 .06
    -.3 .46 0 .5 .3 .46""",
    "tooth": """25 fff/fed/edb/def/dc9/cba eee; blob body -.6 -.5 -.35 -.8 0 -.68 .35 -.8 .6 -.5 .55 -.1 .42
    .2 .36 .75 .2 .9 .1 .45 0 .22 -.1 .45 -.2 .9 -.36 .75 -.42 .2 -.55 -.1; curve shade .03 .05 -.3 -.6 0 -.5
    .3 -.6; oval tint -.34 -.4 .08 .18 15; curve shade .03 .03 -.42 .08 0 .14 .42 .08""",
    "boot": """12 any any; poly body -.5 -.9 .2 -.9 .22 .1 -.45 .1; blob body -.48 .05 .2 -.02 .5 .28 .9 .4
    .95 .7 .2 .78 -.46 .78; box dark .22 .8 .74 .07 .03; box dark -.3 .88 .22 .12 .02; box accent -.15 -.86 .4
    .12 .04; *5 0 .17 0 line light .04 -.02 -.6 .2 -.55; curve shade .04 .04 .55 .3 .6 .5 .66 .72""",
    "bowtie": """18 any any; blob2 body .08 0 .4 -.3 .9 -.5 .98 0 .9 .5 .4 .3; blob2 shade .1 0 .4 -.06 .6 0
    .4 .06; *3 .2 0 0 oval2 accent .42 -.24 .06 .06; *3 .2 0 0 oval2 accent .42 .24 .06 .06; box tint 0 0 .15
    .2 .08""",
    "dress": """10 any any; poly body -.28 -.5 .28 -.5 .2 -.05 .62 .9 -.62 .9 -.2 -.05; blob2 body .05 -.45
    .28 -.6 .3 -.2 .2 0 0 0; line2 body .09 .2 -.5 .22 -.95; box accent 0 -.06 .23 .07 .02; line2 shade .03
    .04 .1 .14 .84; line2 shade .03 .12 .1 .4 .84; line accent .08 -.6 .86 .6 .86""",
    "pants": """10 any any; poly2 body -.02 -.8 .42 -.8 .55 .95 .16 .95 -.02 -.15; box accent 0 -.82 .43 .09
    .02; line shade .03 0 -.72 0 -.15; line2 shade .03 .2 -.7 .42 -.46; line2 shade .03 .3 -.2 .35 .85; *4 .24
    0 0 line dark .04 -.36 -.9 -.36 -.76; box da4 0 -.82 .08 .07 .02; line2 tint .05 .18 .92 .53 .92""",
    "t-shirt": """12 any any; poly2 body .25 -.7 .58 -.58 .98 -.12 .72 .1 .48 -.15; poly body -.28 -.72 .28
    -.72 .5 -.5 .48 .85 -.48 .85 -.5 -.5; oval shade 0 -.72 .26 .17; arc accent .07 0 -.72 .26 .17 0 180;
    line2 accent .07 .94 -.1 .72 .08; oval accent 0 .05 .22 .22; line2 shade .025 .48 -.15 .49 .3""",
    "top_hat": """16 222/333/336/533/454/765/ddd/746 any; oval body 0 .6 .95 .24; oval shade 0 .52 .72 .14;
    blob body -.5 .5 -.54 -.3 -.6 -.75 0 -.85 .6 -.75 .54 -.3 .5 .5 0 .64; oval tint 0 -.74 .58 .13; poly
    accent -.52 .22 .52 .22 .52 .46 .3 .54 0 .57 -.3 .54 -.52 .46""",
    "apple": """25 c22/8b2/dc4/a13/e75/b43 4a3; blob body 0 -.4 .4 -.58 .75 -.3 .7 .3 .35 .8 0 .72 -.35 .8 -.7
    .3 -.75 -.3 -.4 -.58; oval shade 0 -.42 .2 .07; curve 532 .06 .09 0 -.4 .02 -.65 .14 -.88; blob 4a3 .06
    -.64 .3 -.9 .62 -.88 .4 -.62; line 372 .02 .08 -.64 .5 -.84; oval tint -.42 -.2 .1 .2 20""",
    "banana": """60 fd3/cc3/9b3/eb4/c93 642; blob body -.9 -.55 -.78 -.6 -.6 -.1 -.1 .22 .5 .12 .85 -.2 .95
    -.1 .7 .4 .1 .68 -.5 .5 -.85 0; poly 664 -.92 -.5 -.96 -.78 -.8 -.8 -.76 -.55; oval dark .92 -.15 .06 .08
    -40; curve shade .03 .04 -.8 -.35 -.5 .22 0 .48 .5 .35 .88 -.08""",
    "cherry": """18 b12/d23/712/e66/ec5 4a3; curve 583 .04 .06 -.4 .25 -.25 -.35 .15 -.9; curve 583 .04 .06
    .45 .35 .4 -.35 .15 -.9; blob 4a3 .15 -.88 .5 -1 .92 -.75 .5 -.62; line 372 .02 .18 -.86 .8 -.76; oval
    body -.42 .5 .4 .4; oval body .46 .58 .38 .38; oval shade -.4 .18 .1 .04; oval shade .45 .27 .1 .04; oval
    tint -.56 .36 .08 .12 30; oval tint .32 .45 .08 .12 30""",
    "grape": """14 627/8b4/426/a35/336/cc8 4a3; curve 653 .07 .06 0 -.5 .02 -.8 .16 -1; blob 5a3 -.02 -.68 -.3
    -.95 -.68 -.85 -.75 -.6 -.4 -.5; *4 .32 0 0 oval body -.48 -.4 .19 .19; *5 .28 0 0 oval body -.58 -.15 .18
    .18; *4 .28 0 0 oval body -.42 .12 .18 .18; *3 .28 0 0 oval body -.28 .38 .18 .18; *2 .28 0 0 oval body
    -.14 .62 .18 .18; oval body 0 .86 .17 .17; *4 .28 0 0 oval tint -.46 .06 .05 .05; *5 .28 0 0 oval tint
    -.62 -.21 .05 .05; *3 .28 0 0 oval tint -.32 .32 .05 .05; *4 .32 0 0 oval tint -.52 -.46 .05 .05""",
    "pineapple": """16 d92/b72/ca3/8a4/c63 4a4; *7 0 0 14 poly 384 -.24 -.28 -.48 -.95 -.06 -.3; poly 4a4 -.12
    -.15 0 -1.1 .12 -.15; poly2 4a4 0 -.15 .34 -.85 .2 -.15; oval body 0 .42 .44 .58; line2 shade .03 -.36 .2
    -.08 -.1; line shade .03 -.42 .4 .2 -.08; line shade .03 -.4 .62 .34 .05; line shade .03 -.3 .82 .42 .25;
    line shade .03 -.1 .96 .42 .5; line shade .03 .42 .4 -.2 -.08; line shade .03 .4 .62 -.34 .05; line shade
    .03 .3 .82 -.42 .25; line shade .03 .1 .96 -.42 .5""",
    "watermelon": """30 d34/e56/fc4/f88/c23/fa6 385; fan 262 0 -.3 1 1 0 180; fan dfb 0 -.3 .9 .9 0 180; fan
    body 0 -.3 .8 .8 0 180; oval dark -.45 -.05 .035 .07 20; oval dark -.15 -.1 .035 .07; oval dark .15 -.1
    .035 .07; oval dark .45 -.05 .035 .07 -20; oval dark -.3 .18 .035 .07 15; oval dark 0 .16 .035 .07; oval
    dark .3 .18 .035 .07 -15; oval dark 0 .36 .035 .07""",
    "bed": """6 742/a85/433/ddc/864 any; box body -.9 0 .07 .62 .05; box body .92 .25 .06 .37 .04; box shade 0
    .46 .88 .1 .02; box light 0 .22 .83 .17 .06; oval eee -.6 0 .22 .13 -6; blob accent -.32 .06 0 -.08 .5
    -.04 .84 .06 .86 .42 .3 .46 -.3 .42; line light .07 -.34 .06 -.34 .38""",
    "bookshelf": """6 742/a85/433/ddc/864 any; box body 0 0 .66 1 .03; *3 0 .64 0 box 222 0 -.64 .57 .28; *6
    .13 0 0 box accent -.5 -.6 .045 .24; *4 .26 0 0 box c33 -.37 -.58 .05 .22; line da5 .1 .28 -.4 .44 -.82;
    *3 .26 0 0 box 37a -.5 .06 .05 .2; *3 .26 0 0 box eda -.37 .04 .05 .22; box da5 .35 .16 .17 .05; box 583
    .35 .08 .14 .04; *4 .13 0 0 box 584 -.5 .68 .05 .22; *2 .28 0 0 box c63 .1 .66 .05 .24; *3 .13 0 0 box
    accent .18 .7 .05 .2""",
    "chair": """6 any any; line shade .08 -.2 .2 -.2 .75; line shade .08 .45 .2 .5 .78; line body .09 -.5 -1
    -.46 .2 -.5 .95; line body .09 .2 .25 .24 1; line body .09 .04 -.92 .1 .1; *4 0 .2 0 line shade .09 -.48
    -.86 .04 -.8; poly body -.52 .12 .1 .04 .6 .18 .26 .34 -.5 .32; line tint .05 -.48 .3 .24 .34 .56 .2; line
    shade .05 -.46 .62 .22 .68""",
    "coat_rack": """5 742/a85/333/ddd/864 any; line shade .07 0 .62 .05 .98; line body .08 0 .6 -.42 1; line
    body .08 0 .6 .42 1; line body .1 0 -.95 0 .7; oval body 0 -1 .09 .09; curve2 body .07 .06 0 -.55 .25 -.55
    .42 -.72 .42 -.84; curve2 body .06 .05 0 -.3 .18 -.32 .28 -.42; oval2 body .42 -.88 .06 .06; blob accent
    -.52 -.62 -.3 -.66 -.24 -.3 -.2 .15 -.42 .2 -.68 .14 -.62 -.3; line accent .06 -.46 -.6 -.42 -.78; oval
    643 .4 -.82 .3 .07 -8; blob 643 .22 -.82 .26 -1.05 .5 -1.08 .58 -.88""",
    "couch": """6 any any; box2 dark .75 .6 .06 .14; box shade 0 -.12 .82 .42 .12; *2 .78 0 0 box body -.39
    -.14 .36 .34 .1; box shade 0 .38 .9 .16 .05; *2 .78 0 0 box tint -.39 .2 .37 .14 .07; box2 body .92 .18
    .16 .36 .12; oval2 shade .92 -.06 .1 .08; poly accent -.62 -.12 -.3 -.18 -.24 .1 -.56 .14; poly accent .62
    -.12 .3 -.18 .24 .1 .56 .14""",
    "table": """6 any any; line shade .08 -.48 -.2 -.46 .5; line shade .08 .56 -.2 .54 .5; line body .11 -.84
    0 -.82 .85; line body .11 .84 0 .82 .85; poly body -.62 -.42 .7 -.42 1 0 -1 0; poly shade -1 0 1 0 1 .12
    -1 .12; *4 .36 0 0 line shade .02 -.42 -.4 -.6 -.02""",
    "ant": """180 222/a42/632/c84/445/731 any; curve2 dark .07 .05 .1 -.12 .5 -.3 .75 -.7 .82 -.72; curve2
    dark .07 .05 .1 .02 .55 0 .95 .15 1 .2; curve2 dark .07 .05 .1 .1 .5 .3 .7 .8 .78 .86; curve2 dark .05 .04
    .08 -.6 .25 -.8 .2 -1 .38 -1.15; oval body 0 .6 .28 .44; oval body 0 .13 .1 .1; oval body 0 -.1 .17 .22;
    oval body 0 -.5 .25 .23; oval2 dark .17 -.55 .05 .07; *3 0 .2 0 arc shade .035 0 .42 .24 .1 20 160; curve2
    dark .05 .03 .08 -.7 .16 -.78 .06 -.84""",
    "bee": """180 eb2/fc5/d92/ca4 222/531; line2 dark .04 .1 -.1 .5 -.2 .62 -.4; line2 dark .04 .1 .1 .5 .3
    .55 .5; curve2 dark .04 .03 .08 -.65 .16 -.85 .3 -.95; oval2 def .55 -.12 .44 .2 -28; oval2 cde .46 .2 .32
    .15 12; line2 89a .02 .14 0 .88 -.28; poly dark -.06 .9 .06 .9 0 1.1; oval body 0 .45 .3 .5; box accent 0
    .3 .29 .06 .03; box accent 0 .52 .29 .06 .03; box accent 0 .74 .22 .05 .03; oval body 0 -.14 .28 .26; oval
    accent 0 -.54 .22 .19; oval2 light .15 -.56 .05 .09""",
    "butterfly": """60 any any; blob2 body .06 -.1 .3 -.6 .75 -.85 1 -.7 .9 -.25 .5 .05 .1 .1; blob2 shade .06
    .05 .5 .1 .78 .35 .68 .7 .4 .82 .15 .5; oval2 accent .68 -.52 .18 .14 -30; oval2 light .72 -.52 .07 .06;
    oval2 accent .46 .45 .14 .17; curve2 dark .03 .03 .1 -.06 .4 -.3 .9 -.6; oval2 light .9 -.34 .04 .05;
    curve2 dark .04 .03 .02 -.5 .1 -.75 .28 -.95; oval2 dark .3 -.96 .05 .05; line dark .13 0 -.35 0 .5; oval
    dark 0 -.45 .1 .1""",
    "caterpillar": """25 8b3/573/db3/a52/687/eee e73/222/fc3; *6 .26 0 0 line dark .05 -.78 .2 -.8 .52; line
    dark .03 .72 -.4 .68 -.72; line dark .03 .86 -.4 .98 -.7; oval dark .67 -.74 .04 .04; oval dark .99 -.72
    .04 .04; oval body -.85 .1 .18 .22; oval body -.6 .02 .22 .27; oval shade -.34 -.08 .22 .28; oval body
    -.08 -.12 .22 .28; oval shade .18 -.08 .22 .28; oval body .44 .02 .22 .28; oval body .76 -.16 .28 .3; oval
    accent -.6 -.02 .08 .1; oval accent -.34 -.12 .08 .1; oval accent -.08 -.16 .08 .1; oval accent .18 -.12
    .08 .1; oval accent .44 -.02 .08 .1; oval light .84 -.22 .09 .1; oval dark .86 -.22 .04 .05; curve dark
    .03 .03 .76 0 .86 .02 .94 -.04""",
    "dragonfly": """180 48b/3a6/b43/85a/ca3 cde/edb/bdc; oval2 accent .52 -.42 .52 .1 -8; oval2 accent .48
    -.16 .48 .11 10; line2 dark .02 .1 -.4 .95 -.5; line2 dark .02 .1 -.2 .9 -.08; oval2 dark .92 -.53 .06
    .03; curve body .13 .09 0 0 0 .5 .02 1; *6 0 .17 0 line dark .02 -.06 .1 .06 .1; oval body 0 -.3 .13 .26;
    oval shade 0 -.62 .1 .1; oval2 c52 .09 -.66 .1 .1""",
    "ladybug": """180 d32/e82/eb3/222/b23/c63 222/fff/d33; line2 dark .06 .3 -.2 .72 -.46; line2 dark .06 .4
    .2 .85 .24; line2 dark .06 .3 .5 .68 .82; curve2 dark .04 .03 .1 -.7 .2 -.9 .34 -.95; fan dark 0 -.35 .36
    .46 180 360; oval2 light .2 -.58 .08 .07; oval body 0 .2 .62 .68; line dark .04 0 -.4 0 .86; oval2 accent
    .27 -.16 .13 .12; oval2 accent .38 .22 .12 .13; oval2 accent .2 .54 .12 .11; oval accent 0 -.36 .14 .1""",
    "corkscrew": """60 any any; box body 0 -.75 .62 .14 .13; oval2 shade .5 -.75 .09 .12; line 999 .09 0 -.6 0
    -.05; curve bbb .08 .07 0 -.1 .22 0 .16 .12 -.16 .16 -.2 .26 .2 .34 .18 .46 -.16 .5 -.2 .6 .14 .68 .12 .78
    0 1.02; box accent 0 -.55 .1 .07 .02""",
    "funnel": """35 any any; box shade .58 -.62 .34 .05 .04; poly body -.72 -.6 .72 -.6 .16 .2 -.16 .2; poly
    body -.14 .18 .14 .18 .09 .98 -.09 .86; oval shade 0 -.62 .74 .2; oval dark 0 -.58 .6 .13; arc tint .05 0
    -.62 .74 .2 0 360; line tint .06 -.44 -.3 -.2 .08""",
    "grater": """15 bbb/899/ccd/db7/79a any; arc accent .12 0 -.68 .26 .3 180 360; poly body -.36 -.72 .36
    -.72 .56 .95 -.56 .95; poly accent -.38 -.76 .38 -.76 .4 -.6 -.4 -.6; poly accent -.54 .84 .54 .84 .57 .98
    -.57 .98; *4 .17 0 0 oval dark -.26 -.44 .05 .04; *4 .18 0 0 oval dark -.27 -.24 .05 .04; *4 .2 0 0 oval
    dark -.3 -.04 .055 .045; *4 .22 0 0 oval dark -.33 .16 .06 .05; *5 .18 0 0 oval dark -.36 .37 .055 .05; *5
    .2 0 0 oval dark -.4 .58 .06 .05""",
    "kettle": """8 any any; poly shade .45 .1 .95 -.35 1.02 -.25 .55 .5; arc dark .11 0 -.3 .52 .62 180 360;
    blob body -.6 .72 -.72 .4 -.55 -.1 -.25 -.32 .25 -.32 .55 -.1 .72 .4 .6 .72 0 .78; oval shade 0 -.28 .34
    .1; fan accent 0 -.28 .32 .16 180 360; oval dark 0 -.48 .07 .07; box accent 0 .68 .64 .06 .04; curve tint
    .07 .05 -.52 .4 -.46 .1 -.3 -.1""",
    "rolling_pin": """90 c96/eca/853/ddd/b75 any; box accent -.82 0 .22 .07 .06; box accent .82 0 .22 .07 .06;
    box body 0 0 .64 .22 .06; oval2 shade .63 0 .05 .2; line tint .05 -.52 -.1 .5 -.1""",
    "whisk": """90 999/bbc/ca5/556 any; arc body .045 0 -.42 .46 .52 0 360; arc body .045 0 -.42 .3 .53 0 360;
    arc body .045 0 -.42 .12 .54 0 360; line body .04 0 -.94 0 .2; poly shade -.14 .05 .14 .05 .08 .3 -.08 .3;
    line accent .16 0 .3 0 .95; line shade .03 -.08 .4 .08 .4; oval dark 0 .96 .04 .04""",
    "bandage": """90 ec9/b85/854/6be/e79/9c6 fed/ddc; line body .5 -.75 0 .75 0; box accent 0 0 .27 .24 .03;
    *3 0 .12 0 oval shade -.8 -.12 .03 .03; *3 0 .12 0 oval shade -.62 -.12 .03 .03; *3 0 .12 0 oval shade
    -.44 -.12 .03 .03; *3 0 .12 0 oval shade .44 -.12 .03 .03; *3 0 .12 0 oval shade .62 -.12 .03 .03; *3 0
    .12 0 oval shade .8 -.12 .03 .03; *3 .14 0 0 oval shade -.14 -.1 .025 .025; *3 .14 0 0 oval shade -.14 .1
    .025 .025""",
    "crutch": """60 a75/bbb/ddd/864/59b any; line2 body .07 .24 -.9 .22 0 .04 .5; line body .09 0 .45 0 .95;
    line accent .17 -.26 -.94 .26 -.94; line accent .1 -.22 -.2 .22 -.2; box dark 0 .97 .08 .08 .03; *3 0 .12
    0 oval dark 0 .58 .02 .02""",
    "first-aid_kit": """10 d33/fff/e83/5a6/eee/48b c22/fff/2a4; arc dark .12 0 -.46 .3 .26 180 360; box body 0
    .14 .92 .62 .12; line shade .04 -.9 -.14 .9 -.14; box2 999 .6 -.14 .09 .1 .02; oval tint 0 .22 .36 .36;
    box accent 0 .22 .09 .27; box accent 0 .22 .27 .09""",
    "inhaler": """25 37b/85a/3a8/b54/ddd/777 ddd/bcd; box accent -.3 -.72 .2 .28 .08; poly body -.58 -.6 -.02
    -.6 .04 .3 .62 .36 .6 .78 -.3 .86 -.5 .7; poly shade .5 .34 .9 .3 .9 .84 .48 .8; oval dark .9 .57 .05 .25;
    box light -.28 .02 .18 .24 .03; *3 0 .12 0 line 888 .03 -.4 -.1 -.16 -.1; curve tint .05 .05 -.5 -.5 -.46
    .5 -.36 .72""",
    "stethoscope": """20 222/37a/a33/575/639/888 bbc; curve body .09 .08 -.3 -.75 -.36 -.35 -.15 0 0 .12;
    curve body .09 .08 .3 -.75 .36 -.35 .15 0 0 .12; line2 accent .07 .3 -.72 .22 -.98 .1 -1.02; oval2 dark
    .07 -1.02 .07 .06; curve body .09 .09 0 .1 .02 .5 .2 .85 .55 .85 .72 .55 .7 .3; oval accent .7 .16 .24
    .24; oval shade .7 .16 .17 .17; oval tint .7 .16 .08 .08; oval accent 0 .12 .07 .07""",
    "syringe": """180 def/cde/eed/fed any; line 888 .03 .55 0 1.15 0; poly aaa .5 -.08 .66 -.05 .66 .05 .5
    .08; box shade -.72 0 .28 .05; line dark .1 -.98 -.2 -.98 .2; box body .02 0 .5 .2 .03; box accent .2 0 .3
    .16 .02; box dark -.12 0 .06 .18; line shade .09 -.48 -.32 -.48 .32; *6 .12 0 0 line dark .025 -.28 -.18
    -.28 -.06""",
    "drum": """14 any any; line ca7 .06 -.95 -1 -.1 -.38; line ca7 .06 .95 -1 .1 -.38; oval ca7 -.08 -.37 .06
    .06; oval ca7 .08 -.37 .06 .06; oval body 0 .65 .7 .25; poly body -.7 -.3 .7 -.3 .7 .65 -.7 .65; line
    light .04 -.7 -.1 -.42 .76 -.14 .02 .14 .88 .42 0 .7 .6; arc accent .12 0 .65 .7 .25 0 180; oval accent 0
    -.3 .74 .27; oval eec 0 -.33 .66 .21""",
    "guitar": """60 c73/a33/eb6/532/37a/222 eda/222/fff; line 532 .12 0 -.1 0 -.8; box 321 0 -.88 .1 .16 .03;
    *3 0 .1 0 line2 ccc .05 .08 -.98 .16 -.98; blob body 0 -.05 .3 -.06 .38 .15 .3 .32 .5 .6 .36 .95 0 1.02
    -.36 .95 -.5 .6 -.3 .32 -.38 .15 -.3 -.06; oval dark 0 .34 .16 .16; arc accent .04 0 .34 .19 .19 0 360;
    line 532 .11 0 -.7 0 .2; box dark 0 .72 .2 .05; *3 .04 0 0 line ddd .012 -.04 -.9 -.04 .72; *5 0 .13 0
    line ccc .02 -.05 -.65 .05 -.65""",
    "harp": """8 db5/853/c96/333/eee any; *7 .14 -.02 0 line light .02 -.38 -.5 -.38 .62; poly body -.62 .98
    -.4 .98 .72 -.45 .56 -.62; line body .11 -.62 -.9 -.55 .9; curve body .14 .16 -.62 -.9 -.3 -.92 -.05 -.6
    .3 -.42 .64 -.6; oval accent -.64 -.94 .12 .12; box shade -.45 .98 .3 .07 .03""",
    "piano": """5 222/532/eee/842/336 any; blob shade -.85 -.2 -.82 -.95 -.35 -1.08 -.02 -.8 .4 -.72 .75 -.4
    .8 -.1; line dark .04 .4 -.2 .3 -.7; line body .13 -.82 .2 -.82 .95; line body .13 .82 .2 .82 .95; line
    shade .1 0 .2 0 .8; box body 0 0 .98 .24 .05; box light 0 .08 .82 .12; *13 .124 0 0 line 888 .015 -.74
    -.03 -.74 .2; *4 .124 0 0 box 111 -.62 .03 .03 .07; *3 .124 0 0 box 111 0 .03 .03 .07; *3 .124 0 0 box 111
    .5 .03 .03 .07; box accent 0 -.12 .1 .04; line da4 .04 -.1 .5 -.1 .86; line da4 .04 .1 .5 .1 .86; box
    shade 0 .9 .22 .05""",
    "trumpet": """25 db4/bbb/c73/ca8/b43 any; arc body .08 -.05 .12 .5 .22 0 360; line body .08 -.92 -.1 .6
    -.1; poly body .3 -.16 .6 -.17 .78 -.26 .95 -.48 .95 .28 .78 .06 .6 -.03 .3 -.04; oval shade .95 -.1 .08
    .38; oval body -.95 -.1 .05 .1; *3 .17 0 0 box tint -.2 .08 .06 .3 .03; *3 .17 0 0 line shade .05 -.2 -.22
    -.2 -.36; *3 .17 0 0 oval accent -.2 -.38 .07 .035""",
    "xylophone": """30 any any; line2 942 .08 .4 -1 .6 1; box c33 0 -.82 .5 .09 .03; box e83 0 -.55 .56 .09
    .03; box ec3 0 -.28 .62 .09 .03; box 5b4 0 -.01 .68 .09 .03; box 3ab 0 .26 .74 .09 .03; box 36b 0 .53 .8
    .09 .03; box 84a 0 .8 .86 .09 .03; *7 0 .27 0 oval2 ddd .42 -.82 .03 .03; line ca7 .05 .95 -.9 .2 .1; oval
    accent .18 .12 .1 .1""",
    "airplane": """180 ddd/fff/567/c44/48b/eb4 any; poly shade -.06 .05 -.98 .35 -.98 .48 -.06 .38; poly shade
    .06 .05 .98 .35 .98 .48 .06 .38; poly2 body .04 .7 .4 .88 .4 .98 .04 .9; curve body .22 .1 0 -.82 0 0 .0
    .92; line accent .06 0 .62 0 .96; oval2 dark .42 .12 .06 .14; curve dark .05 .05 -.08 -.78 0 -.84 .08
    -.78; *7 0 .13 0 oval2 dark .07 -.5 .018 .03; line2 accent .07 .92 .38 .97 .45; oval2 dark .7 .22 .05
    .11""",
    "bike": """8 any any; *2 1.2 0 0 arc dark .08 -.6 .3 .38 .38 0 360; *2 1.2 0 0 arc 999 .03 -.6 .3 .3 .3 0
    360; *2 1.2 0 0 line 999 .015 -.88 .3 -.32 .3; *2 1.2 0 0 line 999 .015 -.6 .02 -.6 .58; *2 1.2 0 0 line
    999 .015 -.8 .1 -.4 .5; *2 1.2 0 0 line 999 .015 -.8 .5 -.4 .1; line body .08 -.6 .3 -.28 -.22 .36 -.22
    -.06 .34 -.6 .3; line body .08 -.06 .34 -.34 -.42; line body .08 .6 .3 .32 -.46; line dark .06 .32 -.46
    .42 -.58 .56 -.52; line dark .1 -.5 -.46 -.22 -.46; oval accent -.06 .34 .11 .11; line dark .05 -.06 .34
    .04 .54""",
    "car": """6 any any; poly body -.62 0 -.38 -.42 .3 -.42 .62 0; blob body -.98 .4 -1 .05 -.6 -.06 .5 -.06
    .95 .08 1 .4 .5 .46 -.5 .46; poly def -.5 -.02 -.32 -.33 -.06 -.33 -.06 -.02; poly def .02 -.02 .02 -.33
    .26 -.33 .48 -.02; *2 1.1 0 0 oval dark -.55 .42 .23 .23; *2 1.1 0 0 oval ccc -.55 .42 .11 .11; line shade
    .03 -.02 0 -.02 .36; line dark .03 .06 .1 .16 .1; oval fd8 .92 .16 .06 .07; box c22 -.95 .14 .04 .06 .02;
    line accent .06 -.3 .28 .3 .28""",
    "helicopter": """8 any any; curve body .22 .08 -.1 -.05 -.5 -.1 -1 -.18; poly body -.9 -.16 -1.08 -.5 -.92
    -.5 -.82 -.14; line dark .05 -1.18 -.4 -.86 .02; blob body -.4 .1 -.2 -.35 .3 -.36 .62 -.1 .6 .22 .2 .34
    -.2 .3; blob cef .2 -.26 .4 -.24 .56 -.06 .55 .08 .22 .06; box dark .1 -.46 .05 .12; line dark .06 -.85
    -.6 1.02 -.56; line dark .05 .3 .3 .36 .55; line dark .05 -.12 .3 -.14 .55; line dark .06 -.4 .56 .62 .56
    .72 .48; line accent .07 -.34 .14 .55 .2; box def -.02 -.08 .12 .11 .03""",
    "hot-air_balloon": """8 any any; line 543 .025 -.4 .2 -.14 .72; line 543 .025 .4 .2 .14 .72; line 543 .025
    0 .3 0 .7; blob body 0 -1 .5 -.85 .72 -.4 .5 .1 .2 .42 -.2 .42 -.5 .1 -.72 -.4 -.5 -.85; blob2 accent .2
    -.98 .5 -.8 .7 -.4 .5 .08 .36 .24 .44 -.3; blob accent 0 -1 .15 -.7 .17 -.3 .1 .42 -.1 .42 -.17 -.3 -.15
    -.7; box b74 0 .84 .17 .14 .03; line 742 .05 -.17 .72 .17 .72; line 742 .03 -.16 .86 .16 .86""",
    "sailboat": """10 any any; line 753 .06 -.05 -1 -.05 .5; poly body .03 -.9 .03 .3 .8 .3; poly accent -.12
    -.75 -.12 .3 -.62 .3; line shade .02 .03 -.3 .42 -.3; line shade .02 .03 0 .6 0; poly 843 -.85 .42 .95 .42
    .62 .8 -.55 .8; line light .06 -.8 .48 .88 .48; poly c33 -.04 -1 .22 -.95 -.04 -.88; *6 .3 0 0 arc 9ce .05
    -.8 .84 .14 .08 180 360""",
    "broccoli": """25 4a4/363/6a3/758/ac4/485 9b6/cc9; poly accent -.2 .1 .2 .1 .14 .95 -.16 .95; line accent
    .16 .05 .5 .45 .05; line accent .16 -.05 .5 -.42 .05; oval shade -.2 .1 .26 .24; oval shade .24 .08 .26
    .24; oval body -.6 -.08 .32 .3; oval body .6 -.1 .32 .3; oval body -.38 -.46 .34 .32; oval body .36 -.5
    .36 .32; oval body 0 -.66 .34 .3; oval body 0 -.2 .38 .34; *4 .2 .02 0 oval tint -.3 -.2 .06 .05; *5 .12
    .05 0 oval shade -.4 -.3 .06 .05; *4 .2 .02 0 oval tint -.3 -.6 .06 .05""",
    "carrot": """180 e72/fa4/749/dc5/eed/d52 4a3; curve 3a2 .1 .04 0 -.5 -.2 -.8 -.4 -1; curve 4b3 .1 .04 0
    -.5 .02 -.85 -.04 -1.15; curve 3a2 .1 .04 0 -.5 .2 -.8 .4 -.98; curve 5b4 .08 .05 .02 -.5 .14 -.8 .16
    -1.08; blob body -.28 -.42 0 -.55 .28 -.42 .24 0 .08 .75 0 1.02 -.08 .75 -.24 0; line shade .025 -.26 -.25
    -.05 -.22; line shade .025 .24 -.05 .04 -.02; line shade .025 -.2 .2 -.02 .22; line shade .025 .15 .42 .01
    .44; line shade .025 -.11 .6 0 .61""",
    "corn": """60 fc3/eda/c93/749/b42/fe8 6a3; blob body -.3 .5 -.32 -.2 -.2 -.8 0 -1 .2 -.8 .32 -.2 .3 .5 0
    .8; *9 0 .17 0 line shade .025 -.3 -.75 .3 -.75; *5 .12 0 0 line shade .025 -.24 -.9 -.24 .6; line dca .03
    0 -.98 .1 -1.15; line dca .03 0 -.98 -.08 -1.15; blob 7b4 -.04 1 -.34 .75 -.5 .2 -.62 -.35 -.2 .1 -.04 .5;
    blob 693 .04 1 .34 .75 .5 .2 .66 -.3 .2 .1 .02 .5; blob 8c5 0 1.02 -.2 .7 -.1 .25 .05 .1 .2 .4 .2 .75""",
    "eggplant": """60 426/313/747/eee/684/a5b 583; blob body -.2 -.5 .1 -.6 .3 -.4 .45 .1 .55 .5 .3 .92 -.15
    .95 -.45 .6 -.42 .1; curve 472 .1 .14 -.05 -1 .06 -.8 .04 -.62; blob accent -.34 -.32 -.26 -.6 .04 -.74
    .34 -.56 .42 -.24 .22 -.4 .08 -.2 -.08 -.42; curve tint .1 .06 -.28 .55 -.3 .2 -.2 -.1""",
    "pea": """60 6a3/8c4/536/ac5/474 8c4/bd6; blob shade -1 .02 -.5 -.34 0 -.42 .5 -.34 1 -.05 .6 .24 0 .36
    -.6 .28; blob dark -.82 0 -.4 -.2 0 -.24 .4 -.2 .82 -.04 .4 .14 0 .2 -.4 .16; oval accent -.56 -.02 .15
    .14; oval accent -.29 -.02 .18 .18; oval accent .02 -.02 .19 .19; oval accent .33 -.03 .18 .17; oval
    accent .6 -.04 .13 .12; blob body -1 .02 -.6 .12 0 .18 .6 .08 1 -.05 .6 .28 0 .42 -.6 .32; curve 583 .06
    .04 1 -.05 1.12 -.12 1.18 -.24; line 583 .04 -1 .02 -1.12 .06""",
    "pumpkin": """14 e72/fa4/eec/684/c52/889 584; curve 573 .16 .12 0 -.4 .02 -.7 .18 -.85; oval2 shade .55
    .15 .42 .52; oval2 body .34 .15 .38 .58; oval body 0 .15 .3 .6; curve 4a3 .03 .02 .05 -.52 .35 -.75 .6 -.6
    .7 -.75; curve2 shade .03 .03 .2 -.34 .34 .15 .2 .64; curve tint .06 .05 -.08 -.2 -.12 .1 -.08 .35""",
}
