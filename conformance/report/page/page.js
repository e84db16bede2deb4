for (const plot of document.querySelectorAll(".plot[data-case]")) {
  const box = document.getElementById(plot.dataset.case), rows = box.querySelectorAll("tr[id]");
  const readout = plot.closest(".chart").parentNode.querySelector(".readout"), cursor = plot.querySelector(".cursor");
  const at = (e) => { const r = plot.getBoundingClientRect(); return Math.max(0, Math.min(rows.length - 1, Math.floor((e.clientX - r.left) / r.width * rows.length))); };
  plot.addEventListener("pointermove", (e) => {
    const i = at(e), cells = rows[i].cells;
    cursor.style.display = "block";
    cursor.style.left = (i + 0.5) / rows.length * 100 + "%";
    readout.textContent = cells[1].textContent + ": " + cells[0].textContent + ", drift " + cells[2].textContent + ", local " + cells[3].textContent;
  });
  plot.addEventListener("pointerleave", () => { cursor.style.display = "none"; });
  plot.addEventListener("click", (e) => {
    const row = rows[at(e)];
    for (let d = row.closest("details"); d; d = d.parentNode.closest("details")) d.open = true;
    location.hash = row.id;
  });
}
const show = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (!target) return;
  for (let d = target.closest("details"); d; d = d.parentNode.closest("details")) d.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", show);
show();
