// What is wrong with the page, for test_browser.py. `contrast`: the least ratio of text to what is behind it.
(contrast) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3]));
  const behind = (element) => {
    const own = element instanceof SVGElement ? [0, 0, 0, 0] : rgba(getComputedStyle(element).backgroundColor);
    if (own[3] === 1) return own.slice(0, 3);
    return over(own, element.parentElement ? behind(element.parentElement) : [255, 255, 255]);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const scrolls = (element) =>
    element && (["auto", "scroll"].includes(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
  const tagged = (element) => `<${element.tagName.toLowerCase()}> ${element.textContent.trim().slice(0, 60)}`;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const shown = (element) => element.checkVisibility() && element.getClientRects().length > 0;
  const visible = all("body *").filter(shown);
  const beyond = visible.filter((element) => {
    const box = element.getBoundingClientRect();
    const frame = element instanceof SVGElement ? element.ownerSVGElement : null;
    if (frame) {
      const edge = frame.getBoundingClientRect();
      const within = box.left >= edge.left - 1 && box.right <= edge.right + 1 && box.top >= edge.top - 1 && box.bottom <= edge.bottom + 1;
      return element.tagName === "text" && !within;
    }
    return (box.right > innerWidth + 1 || box.left < -1) && !scrolls(element.parentElement);
  });
  const named = (element) =>
    element.getAttribute("aria-label")?.trim() || element.getAttribute("alt")?.trim() || element.querySelector?.("title")?.textContent.trim();
  const levels = all("h1, h2, h3, h4, h5, h6").map((heading) => Number(heading.tagName[1]));
  const unreadable = visible.filter(own).filter((element) => {
    if (element.closest(".on-photo, .picture")) return false;
    const style = getComputedStyle(element);
    const color = rgba(element instanceof SVGElement ? style.fill : style.color);
    const under = behind(element);
    return ratio(over(color, under), under) < contrast;
  });
  return {
    width: document.documentElement.scrollWidth,
    beyond: beyond.map(tagged),
    unnamed: all("img, svg").filter((image) => {
      if (named(image)) return false;
      const outer = image.parentElement.closest("[role=img]");
      if (outer) return !named(outer);
      return !(image.getAttribute("aria-hidden") === "true" && image.parentElement.textContent.trim());
    }).map(tagged),
    levels,
    tables: all("table").filter((table) => !table.caption?.textContent.trim() || !table.querySelector("th")).map(tagged),
    headers: all("th").filter((header) => !["col", "row", "colgroup", "rowgroup"].includes(header.scope)).map(tagged),
    scrollers: visible
      .filter((element) => element.scrollWidth > element.clientWidth + 1 && scrolls(element) && !scrolls(element.parentElement))
      .filter((element) => element.tabIndex < 0 || !named(element)).map(tagged),
    links: all("a[href]").map((link) => link.getAttribute("href"))
      .filter((href) => !href.startsWith("#") || !document.getElementById(decodeURIComponent(href.slice(1)))),
    ids: all("[id]").map((element) => element.id).filter((id, i, ids) => ids.indexOf(id) !== i),
    unreadable: unreadable.map((element) => `${tagged(element)}: ${getComputedStyle(element).color}`),
    words: document.body.innerText,
  };
}
