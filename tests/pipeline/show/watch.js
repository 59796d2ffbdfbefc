// For test_player_browser.py: what is seen in the player, by the numbers that the frames carry.
(bits) => {
  const canvas = document.getElementById("picture");
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [bits * 40, 180];
  const pen = copy.getContext("2d", { willReadFrequently: true });
  const seen = () => {
    pen.drawImage(canvas, 0, 0, copy.width, copy.height);
    const row = pen.getImageData(0, copy.height - 10, copy.width, 1).data;
    let number = 0;
    for (let bit = 0; bit < bits; bit += 1) if (row[4 * (bit * 40 + 20)] > 125) number |= 1 << bit;
    return number;
  };
  const drawn = () => Number(canvas.dataset.frame);
  const next = () => new Promise((done) => requestAnimationFrame(done));
  const until = async (isReached) => {
    while (!isReached(drawn())) await next();
  };
  const settle = async (frame) => {
    await until((reached) => reached === frame);
    return [frame, drawn(), seen()];
  };
  const slider = document.getElementById("seek");
  const seek = (frame) => {
    slider.value = frame;
    slider.dispatchEvent(new Event("input"));
  };
  const press = (key, options = {}) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, ...options }));
  window.watch = {
    seen,
    until,
    press,
    async seeks(frames) {
      const found = [];
      for (const frame of frames) {
        seek(frame);
        found.push(await settle(frame));
      }
      return found;
    },
    async steps(start, key, n) {
      seek(start);
      await settle(start);
      const found = [];
      for (let step = 1; step <= n; step += 1) {
        press(key);
        found.push(await settle(key === "ArrowRight" ? start + step : start - step));
      }
      return found;
    },
    async scrub(frames) {
      for (const frame of frames) seek(frame);
      return settle(frames[frames.length - 1]);
    },
    async play(start) {
      seek(start);
      await settle(start);
      const video = document.getElementById("video");
      const found = [];
      const ended = new Promise((done) => video.addEventListener("ended", done, { once: true }));
      let isOver = false;
      ended.then(() => (isOver = true));
      press(" ");
      while (!isOver) {
        await next();
        found.push([drawn(), seen()]);
      }
      return found;
    },
  };
};
