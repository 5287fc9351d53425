/* Search: chapters first, then exercises and reference pages, the package's files last. Loaded by Sphinx's searchtools.js. */
const RANKS = [["index", 30], ["play", 30], ["notebooks/", 40], ["docs/GLOSSARY", 25], ["docs/COVERAGE", 8], ["exercises/", 12],
  ["README", 6], ["docs/LOG", -25], ["CHANGELOG", -25], ["CONTRIBUTING", -15], ["docs/AUTHORS", -20], ["docs/", 0], ["api/", -30]];
var Scorer = {
  score: ([docname, , , , score]) => score + (RANKS.find(([start]) => docname.startsWith(start)) ?? ["", 0])[1],
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
