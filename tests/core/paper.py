"""Published figures that several tests look up."""

#: Bond dimension of FC2's first layer to the weights of both layers: paper Fig. 2, bonds capped at their maximum.
FIGURE_2_WEIGHTS = {
    2: 1024,
    4: 1760,
    6: 2944,
    8: 4576,
    10: 6656,
    12: 9184,
    14: 12160,
    16: 15584,
    18: 17376,
    20: 19168,
    22: 20960,
}
