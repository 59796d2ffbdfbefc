"use strict";
// The listed tracks: filters, two orders, and pages of cards. Tracks are numbered by their place, the worst first.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const JOINTS = 13; // of a figure
  const ACROSS = 254; // a figure's coordinate at the far edge
  const UNSEEN = 255;

  function unpack(text, Numbers) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Numbers(bytes.buffer);
  }

  const videoOf = unpack(data.video_of, Uint16Array);
  const figures = unpack(data.figures, Uint8Array);
  const bins = data.bins.map((text) => unpack(text, Uint8Array));
  const worst = data.names.map((_, track) => track);
  const orders = { worst, unlike: [...unpack(data.unlike, Uint16Array)] };
  const limbs = new Map(orders.unlike.map((track, place) => [track, data.limbs[place]]));
  const boxes = [...document.querySelectorAll("#filters input")];
  const bars = [...document.querySelectorAll("#histograms svg")].map((svg) => [...svg.querySelectorAll("rect")]);
  const blank = document.querySelector(".card");

  const wordOf = (track) => data.words[data.word_of[track]];

  let shown = worst;
  let page = 0;

  // --- cards

  function figureOf(track) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = data.picture_px;
    const pen = canvas.getContext("2d");
    pen.lineWidth = 2;
    const at = (joint) => {
      const place = 2 * (track * JOINTS + joint);
      if (figures[place] === UNSEEN) return null;
      return [(figures[place] * canvas.width) / ACROSS, (figures[place + 1] * canvas.height) / ACROSS];
    };
    for (const [start, end, side] of data.bones) {
      if (!at(start) || !at(end)) continue;
      pen.strokeStyle = data.colours[side];
      pen.beginPath();
      pen.moveTo(...at(start));
      pen.lineTo(...at(end));
      pen.stroke();
    }
    return canvas;
  }

  const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);

  const inLine = (text) => (/[\s"#]/.test(text) ? JSON.stringify(text) : text); // of corrections

  function cardOf(track) {
    const card = blank.cloneNode(true);
    const video = data.videos[videoOf[track]];
    const name = `${video}/${data.names[track]}`;
    const reasons = data.reasons[track].map((number) => data.phrases[number]).join(", ");
    const verdict = [wordOf(track), reasons].filter(Boolean).join(": ");
    card.className = `card ${wordOf(track)}`;
    const image = card.querySelector("img");
    image.alt = name;
    if (track < data.pictures) image.src = `pictures/${track}.jpg`;
    else image.replaceWith(figureOf(track));
    const link = card.querySelector("a");
    if (data.players.includes(videoOf[track])) {
      link.href = `players/${videoOf[track]}.html#track=${encodeURIComponent(data.names[track])}`;
      link.setAttribute("aria-label", `Play ${name}`);
    }
    card.querySelector("h2").textContent = name;
    const limb = byId("sort").value === "unlike" && limbs.get(track);
    card.querySelector("p").textContent = [limb, verdict].filter(Boolean).join("; ");
    card.querySelector("details").hidden = false;
    card.querySelector("code").textContent = `${data.command} ${quoted(video)}\n\nleave_out ${inLine(`${data.split}/${name}`)}  # ${verdict}`;
    return card;
  }

  function show() {
    const pages = Math.max(1, Math.ceil(shown.length / data.cards));
    const first = page * data.cards;
    byId("cards").replaceChildren(...shown.slice(first, first + data.cards).map(cardOf));
    byId("page").textContent = `${page + 1} of ${pages}`;
    byId("back").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
    byId("state").textContent = `${shown.length.toLocaleString("en")} of ${worst.length.toLocaleString("en")} tracks`;
  }

  // --- filters

  function choose() {
    const words = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const pressed = bars.flatMap((of, number) =>
      of.filter((bar) => bar.getAttribute("aria-pressed") === "true").map((bar) => [bins[number], Number(bar.dataset.bin)]));
    shown = orders[byId("sort").value].filter((track) =>
      words.has(wordOf(track)) && pressed.every(([of, bin]) => of[track] === bin));
    page = 0;
    show();
  }

  function press(bar, neighbours) {
    const was = bar.getAttribute("aria-pressed") === "true";
    for (const other of neighbours) other.setAttribute("aria-pressed", "false");
    bar.setAttribute("aria-pressed", String(!was));
    choose();
  }

  for (const of of bars) {
    for (const bar of of) {
      bar.setAttribute("role", "button");
      bar.setAttribute("tabindex", "0");
      bar.setAttribute("aria-pressed", "false");
      bar.addEventListener("click", () => press(bar, of));
      bar.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        press(bar, of);
      });
    }
  }
  byId("filters").addEventListener("change", choose);
  byId("all").addEventListener("click", () => {
    for (const box of boxes) box.checked = true;
    for (const bar of bars.flat()) bar.setAttribute("aria-pressed", "false");
    choose();
  });
  const turn = (by) => {
    page += by;
    show();
    byId("cards").scrollIntoView();
  };
  byId("back").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("filters").hidden = false;
  byId("pages").hidden = false;
  choose();
})();
