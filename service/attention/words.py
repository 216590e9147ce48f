"""Every reason why a person has to look: one English and one French sentence, and what can be done. Data alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Action = Literal["revive", "refund", "attach", "ignore"]
ACTIONS: Final[tuple[Action, ...]] = ("revive", "refund", "attach", "ignore")


@dataclass(frozen=True, slots=True)
class Words:
    """
    A reason in plain words. `may`: the actions that can fit, beside `ignore`, which always does; whether one fits this
    very matter is seen from its rows (`listing`).
    """

    en: str
    fr: str
    may: tuple[Action, ...] = ()


WORDS: Final[Mapping[str, Words]] = {
    # Money that is not as it should be.
    "late": Words(
        "Money came after its order or session had ended. Take it, give it back, or say what it is for.",
        "L'argent est arrivé après la fin de la commande ou de la session. Acceptez-le, rendez-le ou dites à quoi il "
        "correspond.",
        ("revive", "refund", "attach"),
    ),
    "under": Words(
        "Less money came than was asked for; nothing was delivered. Take it as it is, or give it back.",
        "Il est arrivé moins d'argent que demandé ; rien n'a été livré. Acceptez-le tel quel ou rendez-le.",
        ("revive", "refund"),
    ),
    "over": Words(
        "More money came than was asked for. Take it as it is, or give back what is too much.",
        "Il est arrivé plus d'argent que demandé. Acceptez-le tel quel ou rendez le surplus.",
        ("revive", "refund"),
    ),
    "duplicate": Words(
        "The customer has paid twice. Give the second payment back, or say what it is for.",
        "Le client a payé deux fois. Rendez le second paiement ou dites à quoi il correspond.",
        ("refund", "attach"),
    ),
    "mismatch": Words(
        "The money that came is not what was asked for: another currency or account. Nothing was delivered.",
        "L'argent reçu n'est pas celui demandé : autre devise ou autre compte. Rien n'a été livré.",
        ("refund", "attach"),
    ),
    "unresolved": Words(
        "Nobody knows whether this was paid, and the order could wait no longer. It is still asked about; look at the "
        "provider and decide: caisse payments decide.",
        "Personne ne sait si cela a été payé, et la commande ne pouvait plus attendre. La question reste posée ; "
        "regardez chez le prestataire et tranchez : caisse payments decide.",
    ),
    "disputed": Words(
        "The payer or their bank wants the money back. Answer at the provider, before its deadline.",
        "Le payeur ou sa banque réclame l'argent. Répondez chez le prestataire, avant la date limite.",
    ),
    "merged": Words(
        "Two payments were found to be one and the same. Look whether anything was delivered twice.",
        "Deux paiements n'en faisaient qu'un. Vérifiez que rien n'a été livré deux fois.",
    ),
    # What nobody knows.
    "still_unknown": Words(
        "Nobody knows whether this was paid: the answer was lost. It is asked about again and again; who sees it at "
        "the provider can decide: caisse payments decide.",
        "Personne ne sait si cela a été payé : la réponse s'est perdue. La question est reposée régulièrement ; qui le "
        "voit chez le prestataire peut trancher : caisse payments decide.",
    ),
    "cannot_be_asked": Words(
        "Nobody knows whether this was paid, and this provider cannot be asked. Look there, then decide: "
        "caisse payments decide.",
        "Personne ne sait si cela a été payé, et ce prestataire ne peut pas être interrogé. Regardez chez lui, puis "
        "tranchez : caisse payments decide.",
    ),
    "never_answered": Words(
        "The provider was asked for weeks and has not answered. Ask again, or look there.",
        "Le prestataire a été interrogé pendant des semaines sans répondre. Redemandez, ou regardez chez lui.",
        ("revive",),
    ),
    "provider_disagrees": Words(
        "The provider says that this payment did not succeed, and it counts as paid. Look at the provider's dashboard.",
        "Le prestataire dit que ce paiement n'a pas réussi, et il compte comme payé. Regardez le tableau de bord du "
        "prestataire.",
    ),
    "name_used_twice": Words(
        "The provider gave two of our payments the same number. Look at both in its dashboard.",
        "Le prestataire a donné le même numéro à deux de nos paiements. Regardez les deux dans son tableau de bord.",
    ),
    "provider_refuses_us": Words(
        "The provider refuses our key or our account; payments go elsewhere or fail. Check the account's credentials.",
        "Le prestataire refuse notre clé ou notre compte ; les paiements passent ailleurs ou échouent. Vérifiez les "
        "identifiants du compte.",
    ),
    # Refunds.
    "refund_manual": Words(
        "This refund has to be made by hand at the provider. Make it there, then: caisse refunds done.",
        "Ce remboursement doit être fait à la main chez le prestataire. Faites-le, puis : caisse refunds done.",
    ),
    "refund_failed": Words(
        "The refund did not go through, and the money is still here. Try again, or find another way to the payer.",
        "Le remboursement n'est pas passé, et l'argent est toujours ici. Réessayez, ou trouvez un autre moyen.",
        ("refund",),
    ),
    "refund_unknown": Words(
        "Nobody knows whether this refund was made; it is not sent a second time. Look at the provider, then: caisse "
        "refunds done or give-up.",
        "Personne ne sait si ce remboursement a été fait ; il n'est pas renvoyé. Regardez chez le prestataire, puis : "
        "caisse refunds done ou give-up.",
        ("revive",),
    ),
    "refund_stuck": Words(
        "This refund comes to no end: the provider cannot be reached, refuses us, or never says that it is done.",
        "Ce remboursement n'aboutit pas : le prestataire est injoignable, nous refuse, ou ne dit jamais son issue.",
        ("revive",),
    ),
    "refund_not_ours": Words(
        "Somebody made a refund at the provider itself. No order was changed by it.",
        "Quelqu'un a fait un remboursement chez le prestataire même. Aucune commande n'a été changée.",
    ),
    "refunded_elsewhere": Words(
        "Money of this order went back, and not through caisse. The order was left as it is.",
        "De l'argent de cette commande est reparti, sans passer par caisse. La commande est restée telle quelle.",
    ),
    # Money held, and money paid out.
    "hold_frozen": Words(
        "Something stands against the release of held money: the buyer, a bank, a refund made at the provider, or "
        "money that came late or wrong. Settle it; then refund the buyer, or: caisse holds unfreeze.",
        "Quelque chose s'oppose au versement de l'argent gardé : l'acheteur, une banque, un remboursement fait chez le "
        "prestataire, ou de l'argent en retard ou inexact. Réglez-le ; puis remboursez, ou : caisse holds unfreeze.",
    ),
    "hold_taken_back": Words(
        "Money went back to a buyer after it was released, so the beneficiary owes it: their balance may be below "
        "zero.",
        "De l'argent est retourné à l'acheteur après son versement : le bénéficiaire le doit, son solde peut être "
        "négatif.",
    ),
    "hold_undelivered": Words(
        "This was paid long ago and never delivered. Record the delivery, release it, or refund the buyer.",
        "Ceci a été payé il y a longtemps et jamais livré. Enregistrez la livraison, versez, ou remboursez l'acheteur.",
    ),
    "payee_changed": Words(
        "Where a beneficiary is paid was changed. It waits a day; who has made sure that it is theirs can let it be "
        "used at once: caisse beneficiaries approve BEN PYE.",
        "Le compte d'un bénéficiaire a été changé. Il attend un jour ; qui s'est assuré que c'est bien le sien peut "
        "l'autoriser aussitôt : caisse beneficiaries approve BEN PYE.",
    ),
    "payout_approval": Words(
        "A payout waits for a person: caisse payouts approve, or cancel.",
        "Un versement attend une personne : caisse payouts approve, ou cancel.",
    ),
    "payout_failed": Words(
        "A payout failed; the money is in the balance again. Look at the reason, then: caisse payouts retry.",
        "Un versement a échoué ; l'argent est de nouveau au solde. Voyez la raison, puis : caisse payouts retry.",
    ),
    "payout_returned": Words(
        "A payout was paid and came back; the money is in the balance again. Check the number, then: caisse payouts "
        "retry.",
        "Un versement est revenu ; l'argent est de nouveau au solde. Vérifiez le numéro, puis : caisse payouts retry.",
    ),
    "payout_unknown": Words(
        "Nobody knows whether this was paid out. Look at the provider before anything else; then: caisse payouts "
        "decide.",
        "Personne ne sait si cela a été versé. Regardez d'abord chez le prestataire ; puis : caisse payouts decide.",
    ),
    "payout_otp": Words(
        "The provider has sent a code to the owner of the account and waits for it: caisse payouts otp.",
        "Le prestataire a envoyé un code au titulaire du compte et l'attend : caisse payouts otp.",
    ),
    "payout_float_short": Words(
        "The provider has too little of your money to pay this out. Top it up there; it is sent by itself then.",
        "Votre solde chez le prestataire ne suffit pas pour ce versement. Rechargez-le ; il partira alors tout seul.",
    ),
    "payout_balance_short": Words(
        "Money was taken back after this payout was asked for, so it would overdraw the balance; it is not sent. "
        "Cancel it, or let it wait for the balance: caisse payouts cancel.",
        "De l'argent a été repris après la demande de ce versement ; il dépasserait le solde et n'est pas envoyé. "
        "Annulez-le, ou laissez-le attendre : caisse payouts cancel.",
    ),
    "payout_stuck": Words(
        "A payout does not come to its end. Look at the provider, and at the account's credentials.",
        "Un versement n'aboutit pas. Regardez chez le prestataire, et les identifiants du compte.",
    ),
    "payout_paid_after_all": Words(
        "The provider had said that a payout failed, and says now that it was paid. The balance may be below zero.",
        "Le prestataire avait dit qu'un versement avait échoué et dit maintenant qu'il est payé. Le solde peut être "
        "négatif.",
    ),
    "payout_not_possible": Words(
        "Money was released and could not be paid out by itself; it waits in the beneficiary's balance.",
        "De l'argent a été versé au solde du bénéficiaire sans pouvoir partir tout seul ; il y attend.",
    ),
    "ledger_unsound": Words(
        "The ledger does not add up, so nothing is paid out any more: caisse verify says where.",
        "Le grand livre ne tombe pas juste ; plus rien n'est versé : caisse verify dit où.",
    ),
    "reconcile_differs": Words(
        "What the provider lists is not what is known here. Compare the payment with the provider's page.",
        "Ce que le prestataire liste n'est pas ce qui est connu ici. Comparez le paiement avec sa page.",
    ),
    "reconcile_unanswered": Words(
        "A provider could not be listed, so its payments were not compared. Look at its key, then: caisse reconcile.",
        "Un prestataire n'a pas pu être listé ; ses paiements n'ont pas été comparés. Vérifiez sa clé, puis : caisse "
        "reconcile.",
    ),
    "job_failed": Words(
        "A scheduled job failed: caisse jobs show says why.",
        "Une tâche planifiée a échoué : caisse jobs show dit pourquoi.",
    ),
    "backup_failed": Words(
        "No backup could be made. Look at the disk, and at where backups go.",
        "Aucune sauvegarde n'a pu être faite. Regardez le disque et l'endroit des sauvegardes.",
    ),
    # Callbacks and webhooks.
    "callback_parked": Words(
        "A genuine callback that could not be understood. It is kept; run it again when the reason is mended.",
        "Une notification authentique mais incompréhensible. Elle est gardée ; relancez-la une fois la cause corrigée.",
        ("revive",),
    ),
    "callback_deferred": Words(
        "A genuine callback about something that is not known here yet. It waits for it, three days at most.",
        "Une notification authentique sur quelque chose d'encore inconnu ici. Elle attend, trois jours au plus.",
        ("revive",),
    ),
    "callback_dead": Words(
        "Working on a callback failed again and again. It is kept; run it again when the reason is mended.",
        "Le traitement d'une notification a échoué à plusieurs reprises. Elle est gardée ; relancez-la une fois la "
        "cause corrigée.",
        ("revive",),
    ),
    "callback_quarantined": Words(
        "Something came that does not prove to be the provider's: forged, or our secret is wrong. Check it again after "
        "the secret was mended.",
        "Un message est arrivé sans preuve qu'il vient du prestataire : faux, ou notre secret est mauvais. "
        "Revérifiez-le une fois le secret corrigé.",
        ("revive",),
    ),
    "delivery_dead": Words(
        "A webhook could not be delivered, and was given up. Send it again when the endpoint is well.",
        "Un webhook n'a pas pu être livré et a été abandonné. Renvoyez-le quand le point d'accès va mieux.",
        ("revive",),
    ),
    "endpoint_failing": Words(
        "An endpoint has done nothing but fail for a day or more, and will be disabled.",
        "Un point d'accès ne fait qu'échouer depuis un jour ou plus, et sera désactivé.",
    ),
    "endpoint_disabled": Words(
        "An endpoint was disabled; what it is owed is kept: caisse endpoint enable.",
        "Un point d'accès a été désactivé ; ce qui lui est dû est gardé : caisse endpoint enable.",
    ),
}

MANUAL: Final[Mapping[str, Words]] = {
    "fedapay": Words(
        "FedaPay has no refunds by API: open the transaction in its dashboard and refund it there (MTN), or send the "
        "money to the number that paid; then: caisse refunds done.",
        "FedaPay ne rembourse pas par API : ouvrez la transaction dans son tableau de bord et remboursez-la (MTN), ou "
        "envoyez l'argent au numéro qui a payé ; puis : caisse refunds done.",
    ),
    "monetbil": Words(
        "Monetbil has no refunds: pay the number that paid, which a second person approves: caisse refunds pay-out. Or "
        "send the money yourself, from Monetbil or the operator; then: caisse refunds done.",
        "Monetbil ne rembourse pas : versez l'argent au numéro qui a payé, avec l'accord d'une seconde personne : "
        "caisse refunds pay-out. Ou envoyez-le vous-même, depuis Monetbil ou l'opérateur ; puis : caisse refunds done.",
    ),
    "moneroo": Words(
        "Moneroo has no refunds: pay the number that paid, which a second person approves: caisse refunds pay-out. Or "
        "make a payout to it in Moneroo's dashboard; then: caisse refunds done.",
        "Moneroo ne rembourse pas : versez l'argent au numéro qui a payé, avec l'accord d'une seconde personne : "
        "caisse refunds pay-out. Ou faites un virement dans son tableau de bord ; puis : caisse refunds done.",
    ),
    "ebilling": Words(
        "eBilling has no refunds: pay the number that paid by SHAP, which a second person approves: caisse refunds "
        "pay-out. Or make a SHAP payout of the type refund yourself; then: caisse refunds done.",
        "eBilling ne rembourse pas : versez l'argent par SHAP au numéro qui a payé, avec l'accord d'une seconde "
        "personne : caisse refunds pay-out. Ou faites vous-même un virement SHAP de type refund ; puis : caisse "
        "refunds done.",
    ),
}
"""What to do by hand, by provider: of the reason `refund_manual`, whose detail is the provider's name."""

_NOT_KNOWN = Words("A person has to look at this.", "Une personne doit regarder ceci.")


def of(reason: str) -> Words:
    """The words of a reason; one that an older or newer version wrote still has a sentence."""
    return WORDS.get(reason, _NOT_KNOWN)


def sentence(reason: str, detail: str, lang: str) -> str:
    """What a person reads."""
    said = MANUAL.get(detail, of(reason)) if reason == "refund_manual" else of(reason)
    return said.fr if lang == "fr" else said.en
