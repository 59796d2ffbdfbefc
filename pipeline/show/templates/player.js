"use strict";
// One video and one canvas. Frames are numbered by their place in the video; people read the clip's own numbers.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const video = byId("video");
  const canvas = byId("picture");
  const pen = canvas.getContext("2d");
  const QUARTER = 4; // coordinates are quarters of a px
  const UNSEEN = -32768;
  const LATE = 5e-4; // s, by which browsers round times

  function unpack(text, Numbers) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Numbers(bytes.buffer);
  }

  const times = Array.from(unpack(data.ticks, Int32Array), (tick) => tick / data.ticks_per_second);
  const last = times.length - 1;
  const tracks = data.tracks.map((track) => {
    const frames = unpack(track.frames, Int32Array);
    return {
      ...track,
      boxes: unpack(track.boxes, Int16Array),
      points: unpack(track.points, Int16Array),
      confidence: unpack(track.confidence, Uint8Array),
      rows: new Map(Array.from(frames, (frame, row) => [frame, row])),
      first: frames[0],
      last: frames[frames.length - 1],
    };
  });
  const names = [...document.querySelectorAll(".row .name")];
  const layers = new Map([...document.querySelectorAll("#layers input")].map((input) => [input.value, input]));
  const isOn = (layer) => layers.has(layer) && layers.get(layer).checked;

  let shown = 0; // the frame that is seen
  let wanted = null; // the frame of the last seek, until it is seen
  let isSeeking = false;
  let chosen = 0; // a track
  let pointed = null; // [track, joint]

  canvas.style.aspectRatio = `${data.width} / ${data.height}`;
  canvas.style.width = `min(100%, ${(60 * data.width) / data.height}vh)`;

  // --- times

  function frameAt(time) {
    let low = 0;
    let high = times.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (times[middle] <= time + LATE) low = middle;
      else high = middle;
    }
    return low;
  }

  // Browsers round the start of a frame's time to the frame before it, but not its middle.
  function middleOf(frame) {
    if (frame < last) return (times[frame] + times[frame + 1]) / 2;
    return last ? times[last] + (times[last] - times[last - 1]) / 2 : 0;
  }

  const numberOf = (frame) => data.first + frame * data.step;

  // --- drawing

  function pointsOf(track, row) {
    const points = [];
    for (let joint = 0; joint < data.names.length; joint += 1) {
      const at = row * data.names.length + joint;
      const x = track.points[2 * at];
      const seen = x !== UNSEEN;
      points.push(seen ? { x: x / QUARTER, y: track.points[2 * at + 1] / QUARTER, confidence: track.confidence[at] / 255 } : null);
    }
    return points;
  }

  function fitCanvas() {
    const scale = Math.max(0.25, (canvas.clientWidth * devicePixelRatio) / data.width);
    const width = Math.round(data.width * scale);
    if (canvas.width !== width) {
      canvas.width = width;
      canvas.height = Math.round(data.height * scale);
    }
    pen.setTransform(scale, 0, 0, scale, 0, 0);
  }

  function line(colour, width, from, to) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(from.x, from.y);
    pen.lineTo(to.x, to.y);
    pen.stroke();
  }

  function drawBones(points, px) {
    for (const [start, end, side] of data.bones) {
      if (!points[start] || !points[end]) continue;
      line("#000a", 4 * px, points[start], points[end]);
      line(data.colours[side], 2 * px, points[start], points[end]);
    }
  }

  function drawJoint(point, side, px) {
    const radius = 3.2 * px;
    pen.fillStyle = data.colours[side];
    pen.strokeStyle = "#000";
    pen.lineWidth = 0.8 * px;
    pen.beginPath();
    if (side === "right") pen.rect(point.x - radius, point.y - radius, 2 * radius, 2 * radius);
    else pen.arc(point.x, point.y, radius, 0, 7);
    pen.fill();
    pen.stroke();
  }

  function drawText(text, x, y, px) {
    pen.fillStyle = "#fff";
    pen.strokeStyle = "#000";
    pen.lineWidth = 3 * px;
    pen.strokeText(text, x, y);
    pen.fillText(text, x, y);
  }

  function drawTrack(track, row, isChosen, px) {
    const [x, y, width, height] = track.boxes.subarray(4 * row, 4 * row + 4).map((side) => side / QUARTER);
    const points = pointsOf(track, row);
    pen.strokeStyle = track.colour;
    pen.lineWidth = (isChosen ? 3 : 1.6) * px;
    if (isOn("boxes")) pen.strokeRect(x, y, width, height);
    if (isOn("crops")) {
      const side = Math.max(width, height) * track.crop_scale;
      pen.setLineDash([5 * px, 4 * px]);
      pen.strokeRect(x + (width - side) / 2, y + (height - side) / 2, side, side);
      pen.setLineDash([]);
    }
    if (isOn("joints")) {
      drawBones(points, px);
      points.forEach((point, joint) => point && data.sides[joint] && drawJoint(point, data.sides[joint], px));
    }
    if (isOn("names") && isChosen) {
      points.forEach((point, joint) => point && data.sides[joint] && drawText(data.names[joint], point.x + 5 * px, point.y - 2 * px, px));
    }
    if (isOn("identities")) {
      const left = Math.max(0, x); // also of a box that begins outside the picture
      const bottom = Math.max(17 * px, y);
      pen.fillStyle = track.colour;
      pen.fillRect(left, bottom - 17 * px, pen.measureText(track.name).width + 8 * px, 17 * px);
      pen.fillStyle = "#000";
      pen.fillText(track.name, left + 4 * px, bottom - px);
    }
  }

  // The picture is painted together with what is drawn over it, so that both are of one frame.
  function draw() {
    fitCanvas();
    const px = data.width / canvas.clientWidth;
    const height = video.videoHeight / (data.has_bodies ? 2 : 1);
    const top = isOn("bodies") ? height : 0;
    if (video.readyState > 1) pen.drawImage(video, 0, top, video.videoWidth, height, 0, 0, data.width, data.height);
    pen.lineJoin = pen.lineCap = "round";
    pen.font = `600 ${13 * px}px system-ui, sans-serif`;
    pen.textBaseline = "bottom";
    const absent = [];
    tracks.forEach((track, number) => {
      const row = track.rows.get(shown);
      if (row !== undefined) drawTrack(track, row, number === chosen, px);
      else if (track.first < shown && shown < track.last) absent.push(track.name);
    });
    const others = absent.length ? `, no row: ${absent.slice(0, 3).join(", ")}` : "";
    byId("frame").textContent = `frame ${numberOf(shown)} of ${numberOf(last)}${others}`;
    byId("seek").value = shown;
    canvas.dataset.frame = shown;
    for (const now of document.querySelectorAll(".now")) now.setAttribute("transform", `translate(${shown + 0.5})`);
    showPointed(px);
    if (video.paused) listJoints();
  }

  function showPointed(px) {
    const tip = byId("tip");
    const row = pointed ? tracks[pointed[0]].rows.get(shown) : undefined;
    const point = row === undefined ? null : pointsOf(tracks[pointed[0]], row)[pointed[1]];
    tip.hidden = !point;
    if (!point) return;
    pen.strokeStyle = "#fff";
    pen.lineWidth = 2.5 * px;
    pen.beginPath();
    pen.arc(point.x, point.y, 8 * px, 0, 7);
    pen.stroke();
    tip.textContent = describe(tracks[pointed[0]], pointed[1], point);
    const left = canvas.offsetLeft + Math.min(point.x / px + 12, canvas.clientWidth - tip.offsetWidth);
    tip.style.left = `${Math.max(0, left)}px`;
    tip.style.top = `${Math.max(0, point.y / px - 30)}px`;
  }

  const describe = (track, joint, point) => `${track.name}: ${data.names[joint]}, ${point.confidence.toFixed(2)}`;

  // The joints of the chosen track in words, for keyboards and screen readers.
  const jointButtons = data.names.map((name, joint) => {
    const button = document.createElement("button");
    button.type = "button";
    button.onfocus = () => {
      pointed = [chosen, joint];
      draw();
    };
    byId("joints").append(button);
    return button;
  });

  function listJoints() {
    const track = tracks[chosen];
    const row = track.rows.get(shown);
    const points = row === undefined ? [] : pointsOf(track, row);
    byId("no-row").textContent = row === undefined ? `${track.name}: no row in frame ${numberOf(shown)}` : "";
    jointButtons.forEach((button, joint) => {
      button.hidden = !points[joint];
      if (points[joint]) button.textContent = describe(track, joint, points[joint]);
    });
  }

  // --- transport

  function paintNext(_, { mediaTime }) {
    shown = frameAt(mediaTime);
    if (!video.seeking) draw(); // else `seeked` draws: until then the video gives the frame before
    video.requestVideoFrameCallback(paintNext);
  }

  function go(frame) {
    wanted = Math.max(0, Math.min(last, frame));
    video.pause();
    if (isSeeking) return;
    isSeeking = true;
    video.currentTime = middleOf(wanted);
  }

  video.addEventListener("seeked", () => {
    isSeeking = false;
    const reached = frameAt(video.currentTime);
    if (shown === reached) draw();
    if (wanted !== null && wanted !== reached) go(wanted);
    else wanted = null;
  });

  const target = () => (wanted === null ? shown : wanted);

  function toggle() {
    if (!video.paused) return video.pause();
    if (shown === last) video.currentTime = middleOf(0);
    return video.play();
  }

  function showState() {
    byId("play").textContent = video.paused ? "Play" : "Pause";
    if (video.paused && !isSeeking) draw();
  }
  video.onplay = video.onpause = showState;

  function goToOdd(direction) {
    const { odd } = tracks[chosen];
    const next = direction > 0 ? odd.find((frame) => frame > target()) : odd.findLast((frame) => frame < target());
    if (next !== undefined) go(next);
  }

  function choose(number) {
    chosen = number;
    names.forEach((button, k) => button.setAttribute("aria-pressed", k === number));
    draw();
  }

  function flip(layer) {
    if (!layers.has(layer)) return;
    layers.get(layer).checked = !isOn(layer);
    draw();
  }

  const keys = {
    ArrowLeft: (event) => go(target() - (event.shiftKey ? 10 : 1)),
    ArrowRight: (event) => go(target() + (event.shiftKey ? 10 : 1)),
    Home: () => go(0),
    End: () => go(last),
    n: () => goToOdd(1),
    p: () => goToOdd(-1),
    b: () => flip("boxes"),
    j: () => flip("joints"),
    t: () => flip("names"),
    i: () => flip("identities"),
    c: () => flip("crops"),
    o: () => flip("bodies"),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, textarea")) return;
    const isPlain = !event.target.closest("button, summary, a, [type=checkbox]");
    const action = event.key === " " && isPlain ? toggle : keys[event.key];
    if (!action) return;
    event.preventDefault();
    action(event);
  });
  byId("play").onclick = toggle;
  byId("back").onclick = () => go(target() - 1);
  byId("next").onclick = () => go(target() + 1);
  byId("odd").onclick = () => goToOdd(1);
  byId("seek").oninput = (event) => go(Number(event.target.value));
  byId("speed").onchange = (event) => {
    video.playbackRate = Number(event.target.value);
  };
  for (const input of layers.values()) input.onchange = draw;

  // --- rows of tracks

  function follow(bar, frameOf) {
    const seek = (event) => {
      const box = bar.getBoundingClientRect();
      go(frameOf(Math.max(0, Math.min(0.9999, (event.clientX - box.left) / box.width))));
    };
    bar.onpointerdown = (event) => {
      bar.setPointerCapture(event.pointerId);
      bar.onpointermove = seek;
      seek(event);
    };
    bar.onpointerup = bar.onpointercancel = () => {
      bar.onpointermove = null;
    };
  }

  document.querySelectorAll(".row").forEach((row, number) => {
    const track = tracks[number];
    names[number].onclick = () => {
      choose(number);
      if (!track.rows.has(shown)) go(track.first);
    };
    row.addEventListener("pointerdown", () => choose(number));
    follow(row.querySelector(".bar"), (share) => Math.floor(share * times.length));
    const portraits = row.querySelector(".portraits");
    follow(portraits, (share) => track.portraits[Math.floor(share * track.portraits.length)]);
  });

  // --- lines of corrections, which name people before corrections, and the clip's own frames

  let mark = null;
  const lines = {
    mark: (at) => {
      mark = at;
      return `# mark: ${at.name}, frame ${at.frame}`;
    },
    cut: (at) => `cut ${at.name} ${at.frame} ${at.place}`,
    join: (at) => `join ${mark.name} ${at.name} ${mark.place} ${at.place}`,
    exchange: (at) => `exchange_sides ${at.name} ${Math.min(mark.frame, at.frame)}-${Math.max(mark.frame, at.frame)} ${at.place}`,
  };
  for (const button of document.querySelectorAll("#correct button")) {
    button.onclick = () => {
      const frame = data.first + data.step * target();
      const { stretches } = tracks[chosen];
      const person = stretches.findLast(({ first }) => first <= frame) ?? stretches[0];
      mark ??= { ...person, frame };
      byId("lines").value += `${lines[button.id]({ ...person, frame })}\n`;
    };
  }

  // --- names of joints, by pointing

  function jointAt(event) {
    const box = canvas.getBoundingClientRect();
    const px = data.width / box.width;
    const x = (event.clientX - box.left) * px;
    const y = (event.clientY - box.top) * px;
    let nearest = (event.pointerType === "touch" ? 22 : 12) * px;
    let found = null;
    tracks.forEach((track, number) => {
      const row = track.rows.get(shown);
      if (row === undefined) return;
      pointsOf(track, row).forEach((point, joint) => {
        const distance = point ? Math.hypot(point.x - x, point.y - y) : Infinity;
        if (distance >= nearest) return;
        nearest = distance;
        found = [number, joint];
      });
    });
    return found;
  }
  canvas.onpointermove = (event) => {
    pointed = jointAt(event);
    draw();
  };
  canvas.onpointerdown = (event) => {
    pointed = jointAt(event);
    if (pointed) choose(pointed[0]);
    else toggle();
  };
  canvas.onpointerleave = (event) => {
    if (event.pointerType === "touch") return;
    pointed = null;
    draw();
  };

  // --- start

  function goToHash() {
    const place = new URLSearchParams(location.hash.slice(1));
    const number = tracks.findIndex((track) => track.name === place.get("track"));
    if (number >= 0) choose(number);
    const frame = Number(place.get("frame"));
    if (place.has("frame") && Number.isInteger(frame)) go(Math.floor((frame - data.first) / data.step));
  }
  addEventListener("hashchange", goToHash);
  addEventListener("resize", draw);
  video.addEventListener("loadeddata", () => {
    choose(0);
    goToHash();
    if (!location.hash && !matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => {});
  });
  video.requestVideoFrameCallback(paintNext);
  video.src = byId("clip").textContent;
})();
