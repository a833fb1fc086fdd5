/* The explorer's controls and pictures. `explorer-data.js` has the codes and the first pictures; the weights are loaded
   when a control is first used, from files beside this one, also where the page is opened from a disk. */
"use strict";

const Explorer = (() => {
  const HERE = document.currentScript.src;
  const PAUSE = 600; // milliseconds without a change, before the change is told
  const DIGITS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
  const loading = {};

  const make = (tag, attributes, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };

  // What is computed

  const script = (name) =>
    new Promise((onload, reject) => {
      const onerror = () => reject(new Error(`explorer-${name}.js could not be loaded`));
      document.head.append(make("script", { src: new URL(`explorer-${name}.js`, HERE).href, onload, onerror }));
    });

  const read = async (name) => {
    await script(name);
    return Object.fromEntries(Object.entries(QMVAE[name]).map(([of, layers]) => [of, Network.read(layers)]));
  };

  /* The networks of a file, modality -> layers, loaded once; what failed is tried again. */
  const networks = (name) => {
    loading[name] ??= read(name).catch((error) => {
      delete loading[name];
      throw error;
    });
    return loading[name];
  };

  /** Modality -> the image of a state, and the probabilities that its judge gives the ten digits. */
  const compute = async (state) => {
    const { training, seen, digit, to, walk } = state;
    const codes = QMVAE.data.models[training].shared[seen];
    const shared = codes[digit].map((start, i) => (1 - walk) * start + walk * codes[to][i]);
    const both = Object.entries(state.private).map(([name, own]) => [name, Float32Array.from([...shared, ...own])]);
    const [decoders, judges] = await Promise.all([networks(training), networks("judges")]);
    const found = both.map(([name, code]) => {
      const image = Network.sigmoid(Network.run(decoders[name], code));
      return [name, { image, read: Network.softmax(Network.run(judges[name], image)) }];
    });
    return Object.fromEntries(found);
  };

  // What is shown

  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

  const picture = () => {
    const canvas = make("canvas", {});
    canvas.setAttribute("role", "img");
    return canvas;
  };

  /* image: numbers from 0 to `white`. */
  const paint = (canvas, label, image, [channels, height, width], white = 1) => {
    Object.assign(canvas, { width, height });
    canvas.setAttribute("aria-label", label);
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    for (let i = 0; i < height * width; i++) {
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = (255 * image[(c % channels) * height * width + i]) / white;
      pixels.data[4 * i + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
  };

  const start = (root) => {
    const { shapes, models, first, digit, to, megabytes } = QMVAE.data;
    const names = Object.keys(shapes);
    const of = (makeOne) => Object.fromEntries(names.map((name) => [name, makeOne(name)]));
    const given = of((name) => Network.bytes(QMVAE.data.given[name]));
    const model = () => models[state.training];
    const state = {
      training: Object.keys(models)[0],
      seen: Object.keys(models.long.shared)[0],
      digit,
      to,
      walk: 0,
      private: of((name) => models.long.information[name].map(() => 0)),
      style: of(() => null), // the digit of the image whose private code is taken
    };
    const refreshers = []; // bring the controls to the state
    const status = make("p", { className: "explorer-status" });
    status.setAttribute("role", "status");
    let turn = 0;
    let telling;

    const tell = (text, delay) => {
      clearTimeout(telling);
      telling = setTimeout(() => (status.textContent = text), delay);
    };

    /* How many megabytes of weights the state needs that are not there yet. */
    const missing = () => {
      const sizes = [state.training, "judges"].filter((name) => !QMVAE[name]).map((name) => megabytes[name]);
      return Math.round(10 * sizes.reduce((a, b) => a + b, 0)) / 10;
    };

    const paintGiven = (canvas, name, digit) => {
      const size = given[name].length / DIGITS.length;
      const image = given[name].subarray(digit * size, (digit + 1) * size);
      paint(canvas, `${name.toUpperCase()} test image of a ${digit}`, image, shapes[name], 255);
    };

    /* The row of images that are given for one purpose; which: modality -> digit, or null for none. */
    const givenRow = (text, which) => {
      const canvases = of(picture);
      refreshers.push(() => {
        for (const name of names) {
          const digit = which(name);
          canvases[name].style.visibility = digit === null ? "hidden" : "visible";
          paintGiven(canvases[name], name, digit ?? 0);
        }
      });
      return [make("span", { textContent: text }), ...Object.values(canvases)];
    };

    const sees = (name) => state.seen.split(" and ").includes(name.toUpperCase());

    const generated = of((name) => ({ canvas: picture(), caption: make("figcaption", {}) }));

    const show = (found) => {
      for (const name of names) {
        const { image, read } = found[name];
        const best = read.indexOf(Math.max(...read));
        const { canvas, caption } = generated[name];
        paint(canvas, `Generated ${name.toUpperCase()} image`, image, shapes[name]);
        caption.textContent = `${name.toUpperCase()}, read as ${best} (${Math.round(100 * read[best])} %)`;
      }
    };

    /* Changes the state and shows what comes of it, unless it has changed again by then. what: the change in words. */
    const change = async (what, fields) => {
      Object.assign(state, fields);
      for (const name of names.filter((each) => state.style[each] !== null)) {
        state.private[name] = model().private[name][state.style[name]];
      }
      refreshers.forEach((refresh) => refresh());
      const own = ++turn;
      if (missing()) tell(`Loading ${missing()} MB of weights.`, 0);
      await new Promise(requestAnimationFrame);
      if (own !== turn) return;
      try {
        const found = await compute(state);
        if (own !== turn) return;
        show(found);
        tell(`${what}: ${names.map((name) => generated[name].caption.textContent).join("; ")}.`, PAUSE);
      } catch (error) {
        if (own === turn) tell(`Nothing was computed: ${error.message}.`, 0);
      }
    };

    // The controls

    const choice = (legend, key, options) => {
      const group = make("fieldset", { className: "explorer-choice" }, make("legend", { textContent: legend }));
      for (const [value, text] of options) {
        const input = make("input", { type: "radio", name: `explorer-${key}`, checked: state[key] === value });
        input.addEventListener("change", () => change(`${legend} ${text}`, { [key]: value }));
        group.append(make("label", {}, input, text));
      }
      return group;
    };

    /* label, value and unit are functions, which are asked again after each change. */
    const slider = (id, limits, label, value, unit, move) => {
      const input = make("input", { type: "range", id, ...limits });
      const name = make("label", { htmlFor: id });
      const shown = make("span", { ariaHidden: "true" }); // an <output> would be told at each step, beside the slider
      input.addEventListener("input", () => move(Number(input.value)));
      refreshers.push(() => {
        name.textContent = label();
        input.value = value();
        shown.textContent = unit(value());
        input.setAttribute("aria-valuetext", shown.textContent);
      });
      return [name, input, shown];
    };

    const button = (content, press) => {
      const element = make("button", { type: "button" }, content);
      element.addEventListener("click", press);
      return element;
    };

    const digits = DIGITS.map((each) => [each, String(each)]);

    const walk = () => {
      const percent = (part) => `${Math.round(100 * part)} %`;
      const move = (part) => change(`Walk from ${state.digit} to ${state.to}, ${percent(part)}`, { walk: part });
      const limits = { min: 0, max: 1, step: 0.05 };
      const way = () => `From ${state.digit} to ${state.to}`;
      const group = choice("Walk to", "to", digits);
      const parts = slider("explorer-walk", limits, way, () => state.walk, percent, move);
      group.append(make("div", { className: "explorer-sliders" }, ...parts));
      return group;
    };

    const privateCode = (name) => {
      const title = name.toUpperCase();
      const set = (what, code, style = null) =>
        change(`${title} ${what}`, {
          private: { ...state.private, [name]: code },
          style: { ...state.style, [name]: style },
        });
      const nats = (d) => Math.max(model().information[name][d], 0).toFixed(2);
      const dimensions = state.private[name].map((_, d) =>
        slider(
          `explorer-${name}-${d}`,
          { min: -4, max: 4, step: 0.1 },
          () => `h${d + 1}, ${nats(d)} nats`,
          () => state.private[name][d],
          (value) => value.toFixed(1),
          (value) => set(`h${d + 1} ${value.toFixed(1)}`, Object.assign([...state.private[name]], { [d]: value })),
        ),
      );
      const [used, idle] = [0, 1].map(() => make("div", { className: "explorer-sliders" }));
      const summary = make("summary", {});
      const fold = make("details", {}, summary, idle);
      let placed = null; // the training after which the sliders stand; moving one takes its focus away
      refreshers.push(() => {
        if (placed === state.training) return;
        placed = state.training;
        const [rest, working] = [true, false].map((none) => dimensions.filter((_, d) => (nats(d) === "0.00") === none));
        used.replaceChildren(...working.flat());
        idle.replaceChildren(...rest.flat());
        fold.hidden = rest.length === 0;
        summary.textContent = `${working.length ? "The other " : ""}${rest.length} dimension${rest.length === 1 ? "" : "s"}, of 0.00 nats`;
      });
      const style = (digit) => {
        const canvas = picture();
        const press = button(canvas, () => set(`in the style of its ${digit}`, model().private[name][digit], digit));
        paintGiven(canvas, name, digit);
        press.title = `Style of this ${digit}`;
        refreshers.push(() => press.setAttribute("aria-pressed", state.style[name] === digit));
        return press;
      };
      const buttons = [
        button("Draw from the prior", () => set("private code drawn from the prior", state.private[name].map(normal))),
        button("Back to zero", () => set("private code at zero", state.private[name].map(() => 0))),
      ];
      return make(
        "fieldset",
        {},
        make("legend", { textContent: `Private code of ${title}` }),
        make("p", { textContent: "In the style of" }),
        make("div", { className: "explorer-styles" }, ...DIGITS.map(style)),
        used,
        fold,
        make("div", { className: "explorer-buttons" }, ...buttons),
      );
    };

    const seen = Object.keys(model().shared).map((each) => [each, each]);
    const length = (key) => `${key}, ${models[key].steps.toLocaleString("en")} steps`;
    const trainings = Object.keys(models).map((key) => [key, length(key)]);
    const givenImages = make(
      "div",
      { className: "explorer-given" },
      ...givenRow("digit", (name) => (sees(name) ? state.digit : null)),
      ...givenRow("walk to", (name) => (sees(name) && state.walk > 0 ? state.to : null)),
      ...givenRow("style", (name) => state.style[name]),
    );
    const figures = names.map((name) => make("figure", {}, generated[name].canvas, generated[name].caption));
    const pictures = make("div", { className: "explorer-pictures" }, givenImages, ...figures);
    root.replaceChildren(
      make("div", { className: "explorer-view" }, pictures, status),
      choice("Training", "training", trainings),
      choice("Digit", "digit", digits),
      choice("Shared code of", "seen", seen),
      walk(),
      make("div", { className: "explorer-columns" }, ...names.map(privateCode)),
    );
    refreshers.forEach((refresh) => refresh());
    status.textContent = `The first change loads ${missing()} MB of weights.`;
    show(Object.fromEntries(names.map((name) => [name, { ...first[name], image: Network.floats(first[name].image) }])));
  };

  return { start, compute };
})();

document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("explorer-app");
  if (root && window.QMVAE) Explorer.start(root);
});
