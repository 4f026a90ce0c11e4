
"use strict";
const byId = (id) => document.getElementById(id);
const input = byId("photos"), drop = byId("drop"), answers = byId("answers"), status = byId("status");
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const copyOf = (id) => byId(id).content.firstElementChild.cloneNode(true);
let last = Promise.resolve(); // one photo after another, as the model computes them
let done = 0, total = 0;

function add(files) {
  if (!files.length) {
    status.textContent = "That is not a file: drop or paste an image file, or choose one.";
    return;
  }
  const cards = Array.from(files, (file) => {
    const card = copyOf("card");
    card.querySelector(".path").textContent = file.name;
    return card;
  });
  answers.hidden = false;
  answers.prepend(...cards);
  total += cards.length;
  cards.forEach((card, at) => { last = last.then(() => classify(files[at], card)); });
}

async function classify(file, card) {
  const reply = await ask(file);
  show(reply, file.name, card);
  done += 1;
  const found = card.querySelector(".answer").textContent;
  const share = reply.error ? "" : ` (${reply.classes[0]} ${percent(reply.probabilities[0])})`;
  status.textContent = `${done} of ${total} photos. ${file.name}: ${found}${share}`;
}

async function ask(file) {
  const most = Number(input.dataset.mostBytes);
  if (file.size > most) return { error: `over ${most.toLocaleString("en")} bytes` };
  try {
    for (let tries = 0; ; tries += 1) {
      const reply = await fetch("/predict", { method: "POST", body: file });
      if (reply.status !== 503 || tries === 60) return await reply.json();
      await new Promise((resume) => { setTimeout(resume, 1000); });
    }
  } catch {
    return { error: "no answer: the file cannot be read, or xception serve was stopped" };
  }
}

function show(reply, name, card) {
  const part = (selector) => card.querySelector(selector);
  const answer = part(".answer");
  if (reply.error) {
    answer.textContent = reply.error;
    answer.classList.add("error");
    part(".none").textContent = "no image";
    return;
  }
  const [best] = reply.classes;
  answer.textContent = reply.unknown ? "unknown" : best;
  if (reply.unknown) {
    answer.classList.add("unknown");
    part(".why").textContent = `The model does not answer (${reply.unknown}). Its most probable classes would be:`;
    part(".why").hidden = false;
  }
  reply.classes.forEach((label, at) => {
    const bar = copyOf("bar"), share = percent(reply.probabilities[at]);
    bar.querySelector("bdi").textContent = label;
    bar.querySelector(".share").textContent = share;
    bar.querySelector(".bar").style.width = share;
    part(".bars").append(bar);
  });
  part(".bars").hidden = false;
  const image = document.createElement("img");
  image.src = reply.photo;
  image.alt = name;
  part(".none").replaceWith(image);
  if (reply.heat_map) offer(reply, name, image, part);
}

function offer(reply, name, image, part) {
  const button = part("button"), legend = part(".legend");
  legend.querySelector("bdi").textContent = reply.classes[0];
  button.hidden = false;
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") === "false";
    button.setAttribute("aria-pressed", String(on));
    image.src = on ? reply.heat_map : reply.photo;
    image.alt = on ? `heat map of ${name}` : name;
    legend.hidden = !on;
  });
}

input.addEventListener("change", () => { add([...input.files]); input.value = ""; });
document.addEventListener("paste", (event) => add([...event.clipboardData.files]));
document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add([...event.dataTransfer.files]);
});
