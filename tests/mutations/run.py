"""Breaks the engine on purpose and sees the simulation catch it.

All breaks of mutations.yaml go into one copy of the checkout, each behind a switch, so that there is
one build; then the simulation runs once for each, with its switch on. A break that goes uncaught is a
hole in the simulation, and this ends with 1.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import yaml

TOP = pathlib.Path(__file__).resolve().parents[2]
COPY = TOP / ".local" / "mutants" / "checkout"
TARGET = TOP / ".local" / "mutants" / "target"
# Crates of the checkout itself, which are not taken over from its own builds.
OWN = re.compile(r"^(lib)?(crossdock|tests|local|sim|it|tidy|functions)-")
SWITCH = """
/// Whether a break is switched on.
#[expect(clippy::disallowed_methods, reason = "this copy is broken on purpose")]
pub fn mutated(name: &str) -> bool {
    static NAME: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("CROSSDOCK_MUTANT").ok());
    NAME.as_deref() == Some(name)
}
"""
# The stories first: what they miss, the enumerations have to find.
STORIES = "seeds::whatever_happens_the_books_are_right"
SECONDS_MAX = 900


def switched(text, mutation):
    """`text` with both ways in one place."""
    find, broken = mutation["find"].rstrip("\n"), mutation["broken"].rstrip("\n")
    if text.count(find) != 1:
        sys.exit(f"{mutation['name']}: {mutation['file']} has its text {text.count(find)} times")
    name = mutation["name"]
    tail = " {" if find.endswith(" {") else ""
    find, broken = find.removesuffix(tail), broken.removesuffix(tail)
    both = f'if crate::mutated("{name}") {{ {broken} }} else {{ {find} }}'
    if not find.endswith((";", "}")):
        both = f"({both})"
    return text.replace(find + tail, both + tail)


def copy(mutations):
    """Makes the broken copy; what did not change keeps its time, so that little is built anew."""
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=TOP, capture_output=True, check=True, text=True,
    ).stdout.split("\0")
    wanted = {}
    for name in filter(None, files):
        if (TOP / name).is_file():
            wanted[name] = (TOP / name).read_bytes()
    for mutation in mutations:
        text = wanted[mutation["file"]].decode()
        wanted[mutation["file"]] = switched(text, mutation).encode()
    wanted["shared/src/lib.rs"] += SWITCH.encode()
    for name, content in wanted.items():
        place = COPY / name
        if not place.is_file() or place.read_bytes() != content:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    for place in COPY.rglob("*"):
        if place.is_file() and str(place.relative_to(COPY)) not in wanted:
            place.unlink()


def take_over():
    """Links what the checkout has built of other people's crates, which is the longest part."""
    for folder in ["deps", "build", ".fingerprint"]:
        source, target = TOP / "target/debug" / folder, TARGET / "debug" / folder
        if target.exists() or not source.exists():
            continue
        shutil.copytree(
            source, target, copy_function=os.link, symlinks=True,
            ignore=lambda _, names: [name for name in names if OWN.match(name)],
        )


def build():
    take_over()
    answer = subprocess.run(
        ["cargo", "test", "--workspace", "--test", "sim", "--no-run", "--message-format=json-render-diagnostics"],
        cwd=COPY, env=os.environ | {"CARGO_TARGET_DIR": str(TARGET)},
        stdout=subprocess.PIPE, text=True,
    )
    if answer.returncode != 0:
        sys.exit("the copy does not compile; `broken` has to be an expression of the same type")
    found = re.findall(r'"executable":"([^"]*/sim-[^"]*)"', answer.stdout)
    return found[-1]


def simulate(program, mutant, arguments):
    """Runs the simulation and returns what it said and whether it failed; None if it did not end."""
    surroundings = os.environ | {"CROSSDOCK_MUTANT": mutant, "CROSSDOCK_FAILURES": "1"}
    try:
        run = subprocess.run(
            [program, *arguments], cwd=COPY / "tests", env=surroundings, timeout=SECONDS_MAX,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(errors="replace"), None
    return run.stdout, run.returncode != 0


def is_whole(program):
    """Whether the copy is right while no break is switched on."""
    os.environ["CROSSDOCK_RUNS"] = "500"
    _, failed = simulate(program, "", ["--exact", STORIES])
    del os.environ["CROSSDOCK_RUNS"]
    return failed is False


def judge(program, mutation):
    """What caught the mutant; nothing if nobody did."""
    mutant, first = mutation["name"], mutation.get("seen_by")
    if first and simulate(program, mutant, ["--exact", first])[1] is not False:
        return first
    said, failed = simulate(program, mutant, ["--exact", STORIES, "--nocapture"])
    if failed is None:
        return "the stories do not end"
    if failed:
        seed = re.search(r"^seed (\d+): (.*)$", said, re.MULTILINE)
        return f"seed {seed[1]}: {seed[2]}" if seed else f"the stories: {said[-200:]}"
    # That all others take too long proves nothing, but what has failed by then does.
    said, failed = simulate(program, mutant, ["--skip", STORIES])
    tests = re.findall(r"^test (\S+) \.\.\. FAILED$", said, re.MULTILINE)
    if tests:
        return ", ".join(tests)
    return said[-200:] if failed else None


def main():
    everything = yaml.safe_load((TOP / "tests/mutations/mutations.yaml").read_text())
    only = sys.argv[1:]
    chosen = [one for one in everything if not only or one["name"] in only]
    begun = time.monotonic()
    copy(everything)
    program = build()
    print(f"built in {time.monotonic() - begun:.0f} s", flush=True)
    if not is_whole(program):
        sys.exit("the simulation fails although nothing is broken")
    survivors = 0
    for mutation in chosen:
        begun = time.monotonic()
        caught = judge(program, mutation)
        survivors += caught is None
        seconds = time.monotonic() - begun
        outcome = (caught or "SURVIVES").replace("\n", " ")[:150]
        print(f"{mutation['name']:<26} {seconds:>5.0f} s  {outcome}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    sys.exit(1 if survivors else 0)


main()
