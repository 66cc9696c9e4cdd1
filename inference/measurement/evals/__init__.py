"""How much a model forgets in post-training, from graded answers to the same items before and after."""
