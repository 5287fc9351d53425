/* Replays recorded runs side by side at the recorded pace. The page holds the runs as JSON (tools/site_runs.py): a round is
   [seconds, accepted, rejected, untested, added], and tokens are texts. Words: words.js. */
"use strict";
(() => {
  const words = window.specdecWords.here.replay;
  const KINDS = ["accepted", "rejected", "untested"];
  const SVG = "http://www.w3.org/2000/svg";
  const SLOW = 0.25; // at this speed and below, each round can be read
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  const visible = text => text === "" ? words.end : text.replace(/\n/g, "⏎").replace(/^ | $/g, "␣");

  /* One decoder: its text, a column for each forward pass, the round in words. */
  class Panel {
    constructor(name, run, columns) {
      this.name = name;
      let clock = 0, tokens = 0;
      this.rounds = run.rounds.map(([seconds, accepted, rejected, untested, added]) => {
        clock += seconds;
        tokens += accepted.length + (added === null ? 0 : 1);
        return { at: clock, tokens, accepted, rejected, untested, added };
      });
      this.seconds = clock;
      this.tokens = tokens;
      this.shown = 0;
      this.figures = make("p", { class: "replay-figures" });
      this.text = make("div", { class: "replay-text" });
      this.round = make("p", { class: "replay-round" });
      this.spans = this.rounds.map(round => this.written(round));
      this.columns = this.drawn(columns);
      this.node = make("section", { class: `replay-panel ${name}`, "aria-label": words.names[name] },
        make("h3", {}, words.names[name]), this.figures, this.svg, this.text, this.round);
    }

    written(round) {
      const guessed = round.accepted.length + round.rejected.length + round.untested.length > 0;
      const spans = round.accepted.map(text => make("span", { class: "accepted later" }, text));
      if (round.added !== null)
        spans.push(make("span", { class: `${guessed ? "own" : "plain"} later` }, round.added));
      this.text.append(...spans);
      return spans;
    }

    drawn(columns) {
      const tall = 7, size = 10; // squares in a column, units of a square
      this.svg = document.createElementNS(SVG, "svg");
      this.svg.setAttribute("viewBox", `0 0 ${columns * size} ${tall * size}`);
      this.svg.setAttribute("class", "replay-passes");
      this.svg.setAttribute("preserveAspectRatio", "none");
      this.svg.setAttribute("role", "img");
      this.svg.setAttribute("aria-label", words.columns(words.names[this.name], this.rounds.length));
      return this.rounds.map((round, column) => {
        const group = document.createElementNS(SVG, "g");
        group.setAttribute("class", "later");
        const guessed = round.accepted.length + round.rejected.length + round.untested.length > 0;
        const kinds = [...round.accepted.map(() => "accepted"),
          ...(round.added === null ? [] : [guessed ? "own" : "plain"]),
          ...round.rejected.map(() => "rejected"), ...round.untested.map(() => "untested")];
        kinds.slice(0, tall).forEach((kind, row) => {
          const square = document.createElementNS(SVG, "rect");
          const box = { x: column * size + 1, y: (tall - 1 - row) * size + 1, width: size - 2, height: size - 2, class: kind };
          for (const [name, value] of Object.entries(box)) square.setAttribute(name, value);
          group.append(square);
        });
        this.svg.append(group);
        return group;
      });
    }

    /* Show the first rounds, as many as had ended at `clock`. */
    at(clock, readable) {
      let count = 0;
      while (count < this.rounds.length && this.rounds[count].at <= clock + 1e-9) count++;
      const [low, high] = [Math.min(count, this.shown), Math.max(count, this.shown)];
      for (let i = low; i < high; i++)
        for (const node of [...this.spans[i], this.columns[i]]) node.classList.toggle("later", i >= count);
      this.shown = count;
      const tokens = count ? this.rounds[count - 1].tokens : 0;
      const elapsed = Math.min(clock, this.seconds);
      const speed = elapsed > 0 && tokens ? ` · ${words.speed((tokens / elapsed).toFixed(1))}` : "";
      const lines = [[make("b", {}, words.tokens(tokens)), words.from(count)], [words.seconds(elapsed.toFixed(2)) + speed],
        count ? [words.tau, make("b", {}, (tokens / count).toFixed(2))] : ["\u00a0"]];
      this.figures.replaceChildren(...lines.map(line => make("span", {}, ...line)));
      const last = readable && count ? this.rounds[count - 1] : null;
      this.round.replaceChildren(...(last ? this.words(last, count) : []));
    }

    words(round, number) {
      const guesses = KINDS.flatMap(kind => round[kind].map(text => make("span", { class: kind }, visible(text))));
      const own = round.added === null ? [] : [make("span", { class: guesses.length ? "own" : "plain" }, visible(round.added))];
      return [words.pass(number), ...[...guesses, ...own].flatMap(node => [node, " "])];
    }

    get summary() {
      return words.summary(words.names[this.name], this.tokens, this.rounds.length, this.seconds.toFixed(2));
    }
  }

  class Replay {
    constructor(root) {
      this.root = root;
      this.data = JSON.parse(document.getElementById(root.dataset.runs).textContent);
      this.clock = 0;
      this.playing = false;
      this.stage = make("div", { class: "replay-panels" });
      this.prompt = make("p", { class: "replay-prompt" });
      this.status = make("p", { class: "visually-hidden", role: "status", "aria-live": "polite" });
      this.root.replaceChildren(this.tabs(), this.prompt, this.controls(), this.stage, this.legend(), this.status);
      this.root.replay = this;
      this.choose(0);
    }

    tabs() {
      const choices = this.data.prompts.map((prompt, index) => {
        const input = make("input", { type: "radio", name: "replay-prompt", value: index });
        input.checked = index === 0;
        input.addEventListener("change", () => { this.choose(index); this.start(); });
        return make("label", {}, input, make("span", {}, prompt.title));
      });
      return make("fieldset", { class: "replay-tabs" }, make("legend", { class: "visually-hidden" }, words.prompts), ...choices);
    }

    controls() {
      this.play = make("button", { type: "button", class: "primary" }, words.play);
      const restart = make("button", { type: "button" }, words.restart);
      const step = make("button", { type: "button", title: words.stepMeaning }, words.step);
      this.speed = make("select", {}, ...[1, 0.5, 0.25, 0.1]
        .map((value, i) => make("option", { value }, words.speeds[i])));
      this.time = make("input", { type: "range", min: 0, step: 0.01, value: 0 });
      this.play.addEventListener("click", () => (this.playing ? this.pause() : this.start()));
      restart.addEventListener("click", () => { this.seek(0); this.start(); });
      step.addEventListener("click", () => { this.pause(); this.seek(this.next()); });
      this.speed.addEventListener("change", () => this.draw());
      this.time.addEventListener("input", () => { this.pause(); this.seek(Number(this.time.value)); });
      return make("div", { class: "replay-controls" }, this.play, restart, step,
        make("label", {}, words.speedName, this.speed), make("label", { class: "time" }, words.timeName, this.time));
    }

    legend() {
      return make("p", { class: "replay-legend" },
        ...Object.entries(words.legend).flatMap(([kind, text]) => [make("span", { class: kind }, text), " "]),
        words.column);
    }

    choose(index) {
      const prompt = this.data.prompts[index];
      this.prompt.replaceChildren(make("b", {}, words.prompt), prompt.prompt.replace(/\n+/g, "\n"));
      const columns = Math.max(...Object.values(prompt.runs).map(run => run.rounds.length));
      this.panels = Object.entries(prompt.runs).map(([name, run]) => new Panel(name, run, columns));
      this.end = Math.max(...this.panels.map(panel => panel.seconds));
      this.time.max = (Math.ceil(this.end * 100) / 100).toFixed(2);
      this.stage.replaceChildren(...this.panels.map(panel => panel.node));
      this.seek(0);
    }

    next() {
      const ends = this.panels.flatMap(panel => panel.rounds.map(round => round.at)).filter(at => at > this.clock + 1e-9);
      return ends.length ? Math.min(...ends) : this.end;
    }

    seek(clock) {
      this.clock = Math.min(Math.max(clock, 0), this.end);
      this.draw();
    }

    start() {
      if (this.clock >= this.end) this.seek(0);
      this.playing = true;
      this.before = null;
      this.play.textContent = words.pause;
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(now => this.tick(now));
    }

    pause() {
      this.playing = false;
      this.play.textContent = words.play;
      cancelAnimationFrame(this.frame);
      this.draw();
    }

    tick(now) {
      if (this.before !== null) this.clock += ((now - this.before) / 1000) * Number(this.speed.value);
      this.before = now;
      if (this.clock >= this.end) {
        this.clock = this.end;
        this.pause();
        this.status.textContent = words.finished(this.panels.map(panel => panel.summary));
        return;
      }
      this.draw();
      this.frame = requestAnimationFrame(later => this.tick(later));
    }

    draw() {
      const readable = !this.playing || Number(this.speed.value) <= SLOW;
      for (const panel of this.panels) panel.at(this.clock, readable);
      this.time.value = this.clock;
      this.time.setAttribute("aria-valuetext", words.at(this.clock.toFixed(2), this.end.toFixed(2)));
    }
  }

  for (const root of document.querySelectorAll("[data-runs]")) {
    const replay = new Replay(root);
    if (calm.matches) replay.seek(replay.end);
    else {
      const seen = new IntersectionObserver(entries => {
        if (entries.some(entry => entry.isIntersecting)) { seen.disconnect(); replay.start(); }
      }, { threshold: 0.3 });
      seen.observe(replay.stage);
    }
  }
})();
