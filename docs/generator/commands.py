"""Command lines, from the definitions that clap reads."""

import re
from dataclasses import dataclass

from .page import cell, page, read, sentences, table


@dataclass
class Option:
    name: str
    about: str
    default: str
    env: str


def command_lines():
    programs = [
        (
            "flyweight-dataplane",
            "dataplane/src/args.rs",
            "Serves pools, is the gateway, checks manifests, migrates stores.",
        ),
        (
            "flyweight-operator",
            "operator/src/args.rs",
            "Runs the data plane that FlyweightService resources ask for.",
        ),
        (
            "kubectl flyweight",
            "operator/src/kubectl_flyweight/args.rs",
            "Shows and operates the services of Flyweight.",
        ),
    ]
    parts = []
    for program, source, about in programs:
        text = read(source).split("#[cfg(test)]")[0]
        structs = {name: body for name, body in re.findall(r"pub struct (\w+) \{\n(.*?)\n\}", text, re.S)}
        parts += [f"## {program}", "", about, ""]
        shared = [] if program != "kubectl flyweight" else options(structs, "Args")
        commands = re.search(r"pub enum Command \{\n(.*?)\n\}", text, re.S)[1]
        for one in re.finditer(
            r"((?:    ///[^\n]*\n)+)(    #\[command[^\n]*hide = true\)\]\n)?"
            r"    (\w+)(?:\((\w+)\)| \{\n(.*?)\n    \})?,",
            commands,
            re.S,
        ):
            doc, hidden, name, group, inline = one.groups()
            if hidden:
                continue
            rows = options(structs, group) if group else options({"_": inline or ""}, "_")
            parts += [f"### {program} {dashed(name)}", "", *sentences(doc_text(doc)), ""]
            if rows:
                shown = [[f"`{row.name}`", cell(row.about), row.default, row.env] for row in rows]
                parts += [*table(["option", "what it says", "default", "variable"], shown), ""]
        if shared:
            shown = [[f"`{row.name}`", cell(row.about), row.default, row.env] for row in shared]
            parts += [f"### Of each command of {program}", ""]
            parts += [*table(["option", "what it says", "default", "variable"], shown), ""]
    about = """What `--help` says. An option with a variable is taken from that variable where it is not
        given. Wrong use ends with exit code 2."""
    return page("Command lines", [source for _, source, _ in programs], about, *parts)


def doc_text(text):
    return " ".join(line.strip().removeprefix("///").strip() for line in text.strip().splitlines())


def dashed(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def options(structs, group):
    found = []
    pattern = r"((?:\s*///[^\n]*\n)+)((?:\s*#\[[^\n]*\n)*)\s*(?:pub )?(\w+): ([^\n]+?),?(?=\n|$)"
    for doc, attributes, name, kind_of in re.findall(pattern, structs[group]):
        if "subcommand" in attributes:
            continue
        if "flatten" in attributes:
            found += options(structs, kind_of.rstrip(","))
            continue
        value = re.search(r'value_name = "([^"]+)"', attributes)
        value = value[1] if value else name.replace("_", "-").upper()
        is_option = re.search(r"\barg\((.*\b)?(long|short)\b", attributes)
        long = re.search(r'long = "([^"]+)"', attributes)
        option = f"--{long[1] if long else name.replace('_', '-')} {value}" if is_option else value
        short = re.search(r"\bshort(?: = '(.)')?", attributes)
        if is_option and short:
            option = f"-{short[1] or name[0]}, {option}"
        given = re.search(r'default_value(?:_t)? = ("[^"]*"|[\w:]+)', attributes)
        given = f"`{given[1].strip(chr(34)).split('::')[-1].lower()}`" if given else "–"
        env = re.search(r'env = "(\w+)"', attributes)
        found.append(Option(option, doc_text(doc), given, f"`{env[1]}`" if env else "–"))
    return found
