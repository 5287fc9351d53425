"""Shapes of draft trees: masks, links, and how trees are chosen and grown."""
