"""A class with the name that an anonymous default class would have."""


class default:
    def run(self):
        return "a class"
