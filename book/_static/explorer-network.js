/* The layers of the decoders and judges, computed on the page. An image, or what lies between two layers, is an array
   in the order channel, row, column, as in the library; its rows and columns are equal in number. */
"use strict";

const Network = (() => {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);

  const dense = ({ weight, bias }, input) =>
    bias.map((start, o) => {
      let sum = start;
      for (let i = 0; i < input.length; i++) sum += weight[o * input.length + i] * input[i];
      return sum;
    });

  /* Each channel with a border of zeros, one pixel wide. */
  const padded = (input, channels, size) => {
    const wide = size + 2;
    const output = new Float32Array(channels * wide * wide);
    for (let row = 0; row < channels * size; row++) {
      const [channel, y] = [Math.floor(row / size), row % size];
      output.set(input.subarray(row * size, (row + 1) * size), (channel * wide + y + 1) * wide + 1);
    }
    return output;
  };

  /* The convolution 3 x 3 with padding 1, which keeps the size. It takes most of the time, hence one sum of nine. */
  const convolve = ({ channels, weight: w, bias }, input) => {
    const before = w.length / (9 * channels);
    const size = Math.sqrt(input.length / before);
    const wide = size + 2;
    const given = padded(input, before, size);
    const output = new Float32Array(channels * size * size);
    for (let o = 0; o < channels; o++) {
      output.fill(bias[o], o * size * size, (o + 1) * size * size);
      for (let i = 0; i < before; i++) {
        const k = (o * before + i) * 9;
        for (let y = 0; y < size; y++) {
          const row = (o * size + y) * size;
          for (let x = 0; x < size; x++) {
            const a = (i * wide + y) * wide + x;
            const [b, c] = [a + wide, a + 2 * wide];
            output[row + x] +=
              w[k] * given[a] + w[k + 1] * given[a + 1] + w[k + 2] * given[a + 2] +
              w[k + 3] * given[b] + w[k + 4] * given[b + 1] + w[k + 5] * given[b + 2] +
              w[k + 6] * given[c] + w[k + 7] * given[c + 1] + w[k + 8] * given[c + 2];
          }
        }
      }
    }
    return output;
  };

  /* The transposed convolution 3 x 3 with stride 2 and padding 1, which doubles the size: input pixel (y, x) adds to
     the output pixels (2 y + k - 1, 2 x + m - 1). */
  const upsample = ({ channels, weight, bias }, input) => {
    const before = weight.length / (9 * channels);
    const size = Math.sqrt(input.length / before);
    const wide = 2 * size;
    const output = new Float32Array(channels * wide * wide);
    for (let o = 0; o < channels; o++) {
      output.fill(bias[o], o * wide * wide, (o + 1) * wide * wide);
      for (let i = 0; i < before; i++) {
        for (let k = 0; k < 3; k++) {
          for (let m = 0; m < 3; m++) {
            const factor = weight[((i * channels + o) * 3 + k) * 3 + m];
            for (let y = k === 0 ? 1 : 0; y < size; y++) {
              const row = (o * wide + 2 * y + k - 1) * wide;
              for (let x = m === 0 ? 1 : 0; x < size; x++) {
                output[row + 2 * x + m - 1] += factor * input[(i * size + y) * size + x];
              }
            }
          }
        }
      }
    }
    return output;
  };

  /* Each channel in `wide` x `wide` windows, each reduced to one number. ends: the first pixel of a window in a row or
     column of them, and that after its last. */
  const windows = (channels, input, wide, ends, reduce) => {
    const size = Math.sqrt(input.length / channels);
    const output = new Float32Array(channels * wide * wide);
    for (let place = 0; place < output.length; place++) {
      const [channel, row, column] = [Math.floor(place / wide / wide), Math.floor(place / wide) % wide, place % wide];
      const [[top, bottom], [left, right]] = [ends(row, size), ends(column, size)];
      const values = [];
      for (let y = top; y < bottom; y++) {
        for (let x = left; x < right; x++) values.push(input[(channel * size + y) * size + x]);
      }
      output[place] = reduce(values);
    }
    return output;
  };

  const pool = ({ channels }, input) => {
    const wide = Math.floor(Math.sqrt(input.length / channels) / 2);
    return windows(channels, input, wide, (place) => [2 * place, 2 * place + 2], (values) => Math.max(...values));
  };

  /* The mean of each quarter of the image; the quarters of an odd size overlap. */
  const quarters = ({ channels }, input) => {
    const ends = (place, size) => [Math.floor((place * size) / 2), Math.ceil(((place + 1) * size) / 2)];
    return windows(channels, input, 2, ends, (values) => values.reduce((a, b) => a + b) / values.length);
  };

  const relu = (_, input) => input.map((value) => Math.max(value, 0));

  const STEPS = { dense, convolve, upsample, relu, pool, quarters };

  /** Layers whose weights are numbers, from those whose weights are text. */
  const read = (layers) =>
    layers.map(({ weight, bias, ...layer }) =>
      weight ? { ...layer, weight: floats(weight), bias: floats(bias) } : layer,
    );

  /** The last layer's output. */
  const run = (layers, input) => layers.reduce((value, layer) => STEPS[layer.kind](layer, value), input);

  const sigmoid = (logits) => logits.map((value) => 1 / (1 + Math.exp(-value)));

  const softmax = (logits) => {
    const most = Math.max(...logits);
    const values = Array.from(logits, (value) => Math.exp(value - most));
    const sum = values.reduce((a, b) => a + b);
    return values.map((value) => value / sum);
  };

  return { bytes, floats, read, run, sigmoid, softmax };
})();
