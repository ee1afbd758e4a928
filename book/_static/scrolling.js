// What is wider than its place scrolls: it fades out where there is more, and the keyboard reaches it.
"use strict";

(() => {
  const WIDE = "pre, table, .pst-scrollable-table-container, mjx-container[display='true'], div.math, .wide";

  function mark(element) {
    const rest = element.scrollWidth - element.clientWidth;
    // Italics overhang by a pixel or two: nothing is hidden there.
    const scrolls = rest > 2 && /auto|scroll/.test(getComputedStyle(element).overflowX);
    element.classList.toggle("scrolls", scrolls);
    element.classList.toggle("more-left", scrolls && element.scrollLeft > 2);
    element.classList.toggle("more-right", scrolls && element.scrollLeft < rest - 2);
    if (scrolls) {
      element.tabIndex = 0;
      if (!element.matches("table, pre") && !element.hasAttribute("role")) {
        element.setAttribute("role", "group");
        element.setAttribute("aria-label", "scrolls sideways");
      }
    } else if (element.tabIndex === 0 && element.hasAttribute("tabindex")) {
      element.removeAttribute("tabindex");
    }
  }

  function markFormula(element) {
    const formula = element.querySelector("mjx-container");
    const column = element.closest("p, li, td, th, dd, figcaption, h1, h2, h3, h4") || element.parentElement;
    if (!formula || element.closest("td, th")) return;
    const wide = formula.getBoundingClientRect().width > column.clientWidth + 1;
    element.classList.toggle("scrolls", wide);
    if (wide) mark(element);
  }

  // In the frame in which an element gets its new size: the page itself need not change its own.
  const watched = new WeakSet(), sizes = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target)));

  function all() {
    const article = document.querySelector(".bd-article");
    if (!article) return;
    for (const element of article.querySelectorAll(WIDE)) {
      mark(element);
      if (!watched.has(element)) sizes.observe(element);
      watched.add(element);
    }
    article.querySelectorAll("span.math").forEach(markFormula);
  }

  function start() {
    all();
    document.addEventListener("scroll", (event) => {
      if (event.target.matches && event.target.matches(".scrolls")) mark(event.target);
    }, { capture: true, passive: true });
    document.addEventListener("toggle", all, true);
    document.addEventListener("click", () => requestAnimationFrame(all));
    let waiting = 0;
    new ResizeObserver(() => {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(all);
    }).observe(document.body);
    if (window.MathJax && MathJax.startup && MathJax.startup.promise) MathJax.startup.promise.then(all);
  }

  window.addEventListener("load", start);
})();
