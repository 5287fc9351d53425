/* The formulas of the explorers, without a page. Each mirrors a function of the Python package, and a browser test compares
   the two: `specdec_course.widgets.overlap`, `specdec_ref.cost_model`, `specdec_ref.choose`, `specdec_ref.trees.sequoia`. */
"use strict";
window.specdecModel = (() => {
  const sum = values => values.reduce((total, value) => total + value, 0);

  /* widgets.overlap.bump: a bell over nine tokens that sums to one */
  function bump(centre, width, tokens = 9) {
    const scores = Array.from({ length: tokens }, (_, x) => -((x - centre) ** 2) / (2 * width ** 2));
    const most = Math.max(...scores);
    const raised = scores.map(score => Math.exp(score - most));
    const total = sum(raised);
    return raised.map(value => value / total);
  }

  /* acceptance = sum of min(p, q); correction = what a rejected draft is replaced from, max(0, p - q) normalised */
  function overlap(targetWidth, draftWidth, off) {
    const p = bump(4, targetWidth), q = bump(4 + off, draftWidth);
    const common = p.map((value, x) => Math.min(value, q[x]));
    const rest = p.map((value, x) => Math.max(value - q[x], 0));
    const total = sum(rest);
    return { p, q, common, alpha: sum(common), correction: total > 0 ? rest.map(value => value / total) : p };
  }

  /* cost_model.expected_tau */
  function expectedTau(alpha, gamma) {
    let tau = 1, reached = 1;
    for (let draft = 0; draft < gamma; draft++) tau += (reached *= alpha);
    return tau;
  }

  /* v(k) of two straight lines, as in widgets.rates */
  const lines = (flat, slope) => k => 1 + slope * Math.max(0, k - flat);

  /* cost_model.GPUS and choose.SHAPES["8b"]: data sheets and a published shape, not measurements */
  const GPUS = {
    L4: ["NVIDIA L4", 300e9, 121e12],
    L40S: ["NVIDIA L40S", 864e9, 362e12],
    A100: ["NVIDIA A100 SXM 80 GB", 2039e9, 312e12],
    H100: ["NVIDIA H100 SXM", 3350e9, 989e12],
    H200: ["NVIDIA H200 SXM", 4800e9, 989e12],
  };
  const SHAPE = { weights: 7504924672, layers: 32, heads: 32, kvHeads: 8, headDim: 128, bytes: 2 };

  /* cost_model.ideal_curve: whichever takes longer, the bytes or the arithmetic */
  function roofline(gpu, batch, context) {
    const [, bandwidth, peak] = GPUS[gpu];
    const cached = 2 * SHAPE.layers * SHAPE.kvHeads * SHAPE.headDim * SHAPE.bytes;
    const seconds = k => {
      const bytes = SHAPE.weights * SHAPE.bytes + batch * (context + k) * cached;
      const attention = 4 * SHAPE.layers * SHAPE.heads * SHAPE.headDim * (context + (k + 1) / 2);
      return Math.max(bytes / bandwidth, (batch * k * (2 * SHAPE.weights + attention)) / peak);
    };
    return k => seconds(k) / seconds(1);
  }

  /* cost_model.speedup for each draft length from 0 to `most`, and the best of them (cost_model.best_gamma) */
  function pays(alpha, c, v, most) {
    const speedups = Array.from({ length: most + 1 }, (_, gamma) => expectedTau(alpha, gamma) / (gamma * c + v(gamma + 1)));
    const best = speedups.indexOf(Math.max(...speedups));
    return { speedups, best, speedup: speedups[best], prices: Array.from({ length: most + 1 }, (_, k) => v(k + 1)) };
  }

  /* Acceptance by rank: the first child catches a, each later one the share b of what its earlier siblings missed. */
  function ranks(a, b, width) {
    const row = [a];
    for (let rank = 1, missed = 1 - a; rank < width; rank++, missed *= 1 - b) row.push(missed * b);
    return row;
  }

  /* trees.sequoia.optimal_tree for one row of acceptance rates that all depths share */
  function optimalTree(row, nodes, depth) {
    const known = new Map();
    function forest(count, level, rank) {
      if (count === 0 || level === depth || rank === row.length) return [0, []];
      const key = (count * 64 + level) * 64 + rank;
      if (known.has(key)) return known.get(key);
      let best = null;
      for (let size = 1; size <= count; size++) {
        const below = forest(size - 1, level + 1, 0), after = forest(count - size, level, rank + 1);
        const value = row[rank] * (1 + below[0]) + after[0];
        if (!best || value > best[0]) best = [value, [size, ...after[1]]];
      }
      known.set(key, best);
      return best;
    }
    const tau = 1 + forest(nodes - 1, 0, 0)[0], parents = [-1];
    let level = [[0, nodes - 1, 0]];
    while (level.length) {
      const next = [];
      for (const [node, below, at] of level)
        for (const size of forest(below, at, 0)[1]) {
          next.push([parents.length, size - 1, at + 1]);
          parents.push(node);
        }
      level = next;
    }
    return { parents, tau };
  }

  /* Depth, rank among siblings and chance of acceptance of each node; tau is the sum of the chances
     (trees.sequoia.expected_tokens). */
  function valued(parents, row) {
    const depths = [0], rank = [0], values = [1], children = parents.map(() => 0);
    for (let node = 1; node < parents.length; node++) {
      const parent = parents[node];
      depths.push(depths[parent] + 1);
      rank.push(children[parent]++);
      values.push(values[parent] * (row[rank[node]] ?? 0));
    }
    return { depths, ranks: rank, values, tau: sum(values) };
  }

  return { bump, overlap, expectedTau, lines, GPUS, roofline, pays, ranks, optimalTree, valued };
})();
