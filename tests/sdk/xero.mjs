// Sells something in Xero through the vendor's own package for JavaScript.
//
// Reads {"base", "tenant", "token"} from standard input and prints what the package made of the
// answers. Only the address of the accounting API is another; tokens are got elsewhere, since the
// package has the hosts for them in its code.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const root = process.env.NODE_MODULES_ROOT ?? import.meta.dirname ?? process.cwd();
const { XeroClient, Invoice, CreditNote, LineAmountTypes } = createRequire(join(root, "xero.mjs"))("xero-node");

const { base, tenant, token } = JSON.parse(readFileSync(0, "utf8"));
const xero = new XeroClient();
xero.setTokenSet({ access_token: token, token_type: "Bearer" });
const api = xero.accountingApi;
api.basePath = `${base}/api.xro/2.0`;

const date = "2026-05-29";
const lineItems = [
  { description: "Mug", quantity: 2, unitAmount: 10, accountCode: "200", taxType: "OUTPUT2" },
];
const account = { code: "090" };

const contacts = await api.createContacts(tenant, { contacts: [{ name: "Ada Byron", contactNumber: "shop-1" }] });
const contact = { contactID: contacts.body.contacts[0].contactID };
const invoices = await api.createInvoices(
  tenant,
  {
    invoices: [
      {
        type: Invoice.TypeEnum.ACCREC,
        contact,
        date,
        dueDate: date,
        invoiceNumber: "S-1",
        status: Invoice.StatusEnum.AUTHORISED,
        lineAmountTypes: LineAmountTypes.Inclusive,
        lineItems,
      },
    ],
  },
  true,
  4,
  "a-key",
);
const invoice = invoices.body.invoices[0];
await api.createPayments(tenant, {
  payments: [{ invoice: { invoiceID: invoice.invoiceID }, account, date, amount: 20 }],
});
const paid = (await api.getInvoice(tenant, invoice.invoiceID)).body.invoices[0];
const notes = await api.createCreditNotes(tenant, {
  creditNotes: [
    {
      type: CreditNote.TypeEnum.ACCRECCREDIT,
      contact,
      date,
      status: CreditNote.StatusEnum.AUTHORISED,
      lineItems,
    },
  ],
});
const note = notes.body.creditNotes[0];
const refund = await api.createPayment(tenant, {
  creditNote: { creditNoteID: note.creditNoteID },
  account,
  date,
  amount: note.total,
});
const page = (await api.getInvoices(tenant, undefined, undefined, undefined, undefined, undefined, undefined, undefined, 1)).body;

let refusal = null;
try {
  await api.createInvoices(tenant, { invoices: [{ ...invoice, invoiceID: undefined }] });
} catch (error) {
  refusal = JSON.parse(error).response.body.Elements[0].ValidationErrors[0].Message;
}

console.log(
  JSON.stringify({
    paid: [paid.status, paid.total, paid.totalTax, paid.amountDue, paid.date, paid.fullyPaidOnDate],
    refund: refund.body.payments[0].paymentType,
    page: [page.pagination.itemCount, page.invoices[0].lineItems.length],
    refusal,
  }),
);
