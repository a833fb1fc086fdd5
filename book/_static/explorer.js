/* The decoders of a trained Q-MVAE, computed on the page. `explorer-model.js` holds the layers and codes; no request is made.
   An image is an array of numbers in [0, 1] in the order channel, row, column, as in the library. */
"use strict";

const Explorer = (() => {
  const floats = (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  };

  const dense = (layer, input) => {
    const output = Float32Array.from(layer.bias);
    for (let o = 0; o < output.length; o++) {
      let sum = 0;
      for (let i = 0; i < input.length; i++) sum += layer.weight[o * input.length + i] * input[i];
      output[o] += sum;
    }
    return output;
  };

  /* The transposed convolution 3 x 3 with stride 2 and padding 1, which doubles the size: input pixel (y, x) adds to
     the output pixels (2 y + k - 1, 2 x + m - 1). */
  const upsample = (layer, input) => {
    const [before, after] = layer.channels;
    const size = Math.sqrt(input.length / before);
    const wide = 2 * size;
    const output = new Float32Array(after * wide * wide);
    for (let o = 0; o < after; o++) {
      output.fill(layer.bias[o], o * wide * wide, (o + 1) * wide * wide);
      for (let i = 0; i < before; i++) {
        for (let k = 0; k < 3; k++) {
          for (let m = 0; m < 3; m++) {
            const weight = layer.weight[((i * after + o) * 3 + k) * 3 + m];
            for (let y = k === 0 ? 1 : 0; y < size; y++) {
              const row = (o * wide + 2 * y + k - 1) * wide;
              for (let x = m === 0 ? 1 : 0; x < size; x++) {
                output[row + 2 * x + m - 1] += weight * input[(i * size + y) * size + x];
              }
            }
          }
        }
      }
    }
    return output;
  };

  const STEPS = { dense, upsample, relu: (_, input) => input.map((value) => Math.max(value, 0)) };

  const load = (model) => {
    for (const modality of Object.values(model.modalities)) {
      for (const layer of modality.layers) {
        if (typeof layer.weight === "string") {
          layer.weight = floats(layer.weight);
          layer.bias = floats(layer.bias);
        }
      }
    }
    return model;
  };

  /** The mean image of a modality from a shared and a private code. */
  const decode = (model, name, shared, style) => {
    let value = Float32Array.from([...shared, ...style]);
    for (const layer of model.modalities[name].layers) value = STEPS[layer.kind](layer, value);
    return value.map((logit) => 1 / (1 + Math.exp(-logit)));
  };

  const paint = (canvas, image, [channels, height, width]) => {
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    for (let i = 0; i < height * width; i++) {
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = 255 * image[(c % channels) * height * width + i];
      pixels.data[4 * i + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
  };

  const make = (tag, attributes, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };

  const start = (root, model) => {
    load(model);
    const names = Object.keys(model.modalities);
    const state = { digit: 3, source: Object.keys(model.codes)[0], styles: {} };
    const shown = {};
    for (const name of names) state.styles[name] = new Array(model.modalities[name].information.length).fill(0);

    const draw = () => {
      const code = model.codes[state.source][state.digit];
      for (const name of names) {
        const image = decode(model, name, code, state.styles[name]);
        paint(shown[name].canvas, image, model.modalities[name].shape);
        const moved = state.styles[name].filter((value) => value !== 0).length;
        shown[name].canvas.setAttribute(
          "aria-label",
          `${name.toUpperCase()} image decoded from the shared code of digit ${state.digit}, ${moved} private dimensions moved`,
        );
      }
    };

    const choice = (legend, key, options) => {
      const group = make("fieldset", {}, make("legend", { textContent: legend }));
      for (const [value, text] of options) {
        const input = make("input", { type: "radio", name: `explorer-${key}`, checked: state[key] === value });
        input.addEventListener("change", () => {
          state[key] = value;
          draw();
        });
        group.append(make("label", {}, input, text));
      }
      return group;
    };

    const sliders = (name) => {
      const { information } = model.modalities[name];
      const order = information.map((_, d) => d).sort((a, b) => information[b] - information[a]);
      const inputs = [];
      const group = make("fieldset", {}, make("legend", { textContent: `Private code of ${name.toUpperCase()}` }));
      for (const d of order) {
        const value = make("output", { textContent: "0.0" });
        const input = make("input", { type: "range", min: "-4", max: "4", step: "0.1", value: "0", id: `explorer-${name}-${d}` });
        input.addEventListener("input", () => {
          state.styles[name][d] = Number(input.value);
          value.textContent = Number(input.value).toFixed(1);
          draw();
        });
        inputs.push(input);
        group.append(make("label", { htmlFor: input.id }, `h${d + 1}`, make("small", {}, ` ${information[d].toFixed(2)} nats`)), input, value);
      }
      const set = (next) => {
        inputs.forEach((input, place) => {
          input.value = String(next(order[place]));
          input.dispatchEvent(new Event("input"));
        });
      };
      const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
      const random = make("button", { type: "button", textContent: "Draw from the prior" });
      random.addEventListener("click", () => set(() => normal().toFixed(1)));
      const zero = make("button", { type: "button", textContent: "Back to zero" });
      zero.addEventListener("click", () => set(() => 0));
      group.append(make("div", { className: "explorer-buttons" }, random, zero));
      return group;
    };

    const controls = make(
      "div",
      { className: "explorer-choices" },
      choice("Digit", "digit", Array.from({ length: 10 }, (_, digit) => [digit, String(digit)])),
      choice("Shared code of", "source", Object.keys(model.codes).map((each) => [each, each])),
    );
    const columns = make("div", { className: "explorer-columns" });
    for (const name of names) {
      const canvas = make("canvas", {});
      canvas.setAttribute("role", "img");
      shown[name] = { canvas };
      columns.append(make("section", {}, make("h2", { textContent: name.toUpperCase() }), canvas, sliders(name)));
    }
    root.replaceChildren(controls, columns, make("p", { className: "explorer-source", textContent: model.about }));
    draw();
  };

  return { start, decode, load };
})();

document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("explorer-app");
  if (root && window.QMVAE_MODEL) Explorer.start(root, window.QMVAE_MODEL);
});
