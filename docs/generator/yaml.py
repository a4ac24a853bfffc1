"""A reader of the YAML that crdgen writes, so that nothing has to be installed for a check."""

import re


class Yaml:
    """What YAML the definitions have: block maps, block lists, scalars, `[]` and `{}`."""

    def __init__(self, text):
        self.lines = []
        for line in text.splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                self.lines.append((len(line) - len(line.lstrip()), line.strip()))
        self.at = 0

    def document(self):
        return self.block(self.lines[0][0])

    def block(self, indent):
        is_list = self.lines[self.at][1].startswith("- ") or self.lines[self.at][1] == "-"
        return self.items(indent) if is_list else self.map(indent)

    def items(self, indent):
        found = []
        while self.at < len(self.lines):
            depth, text = self.lines[self.at]
            if depth != indent or not text.startswith("-"):
                break
            rest = text[1:].strip()
            if re.match(r"[^'\"\s][^\s]*:(\s|$)", rest):
                # a map that begins on the line of its dash
                self.lines[self.at] = (indent + 2, rest)
                found.append(self.map(indent + 2))
            else:
                self.at += 1
                found.append(self.scalar(rest, indent))
        return found

    def map(self, indent):
        found = {}
        while self.at < len(self.lines):
            depth, text = self.lines[self.at]
            if depth != indent or text.startswith("- "):
                break
            key, _, rest = text.partition(":")
            self.at += 1
            rest = rest.strip()
            if rest:
                found[key.strip("'\"")] = self.scalar(rest, indent)
            elif self.at < len(self.lines) and self.is_below(indent):
                found[key.strip("'\"")] = self.block(self.lines[self.at][0])
            else:
                found[key.strip("'\"")] = None
        return found

    def is_below(self, indent):
        depth, text = self.lines[self.at]
        return depth > indent or (depth == indent and text.startswith("- "))

    def scalar(self, text, indent):
        if text in ("|-", "|", ">-", ">"):
            lines = []
            while self.at < len(self.lines) and self.lines[self.at][0] > indent:
                lines.append(self.lines[self.at][1])
                self.at += 1
            return ("\n" if text.startswith("|") else " ").join(lines)
        if text[0] in "'\"":
            quote = text[0]
            # a quoted text may go on over lines
            while not (len(text) > 1 and text.endswith(quote) and text[1:].count(quote) % 2 == 1):
                text += " " + self.lines[self.at][1]
                self.at += 1
            inner = text[1:-1]
            return (
                inner.replace("''", "'") if quote == "'" else inner.replace('\\"', '"').replace("\\\\", "\\")
            )
        while self.at < len(self.lines) and self.lines[self.at][0] > indent:
            text += " " + self.lines[self.at][1]
            self.at += 1
        if text in ("[]", "{}"):
            return [] if text == "[]" else {}
        if text in ("true", "false"):
            return text == "true"
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                pass
        return text
