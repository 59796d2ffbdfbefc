// Search: pages before the API; measurements and stubs of pages that have moved last.
var Scorer = {
  score: ([page, , , , score]) => {
    if (/^(benchmarks\/(?!accuracy)|docs\/operations$|CONTRIBUTING|docs\/architecture)/.test(page)) return score * 0.3;
    return /^docs\/api/.test(page) ? score * 0.5 : score;
  },
  objNameMatch: 11, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
