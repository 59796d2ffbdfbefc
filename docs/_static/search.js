// Sphinx finds a page only if it has every word of the query. Here, pages with some of the words are found, too. A word
// that few pages have counts more than a frequent one; in a title or a keyword (keywords.txt), three times as much as in
// the text.
if (typeof Search !== "undefined") {
  const stemmer = new Stemmer();
  let keywords = null; // stem -> pages

  const keywordPages = (index) => {
    const pages = {};
    for (const [entry, targets] of Object.entries(index.indexentries)) {
      for (const word of splitQuery(entry.toLowerCase())) {
        for (const [page, , isMain] of targets) {
          if (isMain) (pages[stemmer.stemWord(word)] ??= []).push(page);
        }
      }
    }
    return pages;
  };

  const pagesWith = (table, stem) => {
    if (Object.hasOwn(table, stem)) return [table[stem]].flat();
    if (stem.length < 4) return [];
    return Object.keys(table).filter((word) => word.startsWith(stem)).flatMap((word) => table[word]);
  };

  Search.performTermsSearch = (stems, excluded) => {
    const index = Search._index;
    keywords ??= keywordPages(index);
    const scores = new Map();
    for (const stem of stems) {
      const found = new Map();
      for (const [table, weight] of [[index.terms, 1], [index.titleterms, 3], [keywords, 3]]) {
        for (const page of pagesWith(table, stem)) found.set(page, Math.max(weight, found.get(page) ?? 0));
      }
      const rarity = Math.log(1 + index.docnames.length / found.size);
      for (const [page, weight] of found) scores.set(page, (scores.get(page) ?? 0) + weight * rarity);
    }
    for (const stem of excluded) {
      for (const page of pagesWith(index.terms, stem)) scores.delete(page);
    }
    const best = Math.max(...scores.values());
    return [...scores]
      .filter(([, score]) => score > best / 4)
      .map(([page, score]) =>
        [index.docnames[page], index.titles[page], "", null, score, index.filenames[page], SearchResultKind.text]);
  };

  // One line for each page: the best one.
  const perform = Search._performSearch;
  Search._performSearch = (...query) => {
    const lines = new Map(); // the last result is the best one
    for (const result of perform(...query)) {
      lines.delete(result[0]);
      lines.set(result[0], result);
    }
    return [...lines.values()];
  };
}
