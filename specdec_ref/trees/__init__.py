"""Shapes of draft trees: masks today; links, static, dynamic and optimal trees with the chapter on trees."""
