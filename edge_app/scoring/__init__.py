"""How good a model is: labelled pictures, their answers, and the figures and charts made of them."""
